// The page of a sweep that is going on: it is loaded again when its server has a newer one.

const SECONDS_BETWEEN_LOOKS = 5;

function follow() {
  const version = document.documentElement.dataset.live, place = document.querySelector("#live");
  if (version === undefined) return;
  bind(place, writeAddress);
  const say = text => { place.querySelector("output").value = text; };
  setInterval(async () => {
    try {
      const answer = await fetch("version");
      if (!answer.ok) throw new Error(answer.statusText);
      const newest = await answer.text();
      say(newest === version ? "" : "there are newer results: load this page again");
      if (newest !== version && state.follow === "1") loadAgain();
    } catch {
      say("its server does not answer: this page stays as it is");
    }
  }, SECONDS_BETWEEN_LOOKS * 1000);
}

/** Charts come late, so that a browser by itself would not find the place again. */
function loadAgain() {
  writeAddress();
  sessionStorage.setItem("ncflow-place", String(window.scrollY));
  window.history.scrollRestoration = "manual";
  location.reload();
}

function findPlaceAgain() {
  const place = sessionStorage.getItem("ncflow-place");
  if (document.documentElement.dataset.live === undefined || place === null) return;
  sessionStorage.removeItem("ncflow-place");
  window.scrollTo(0, Number(place));
}
