// From the embedded data to a page that answers.

const NO_COLUMN = "";

/** What to look at first: collapse against what varies most usefully. */
function chooseAxes() {
  const prefer = (names, first) => [...first.filter(name => names.includes(name)), ...names][0] ?? NO_COLUMN;
  const numeric = data.by.filter(name => columns.get(name).numeric);
  const measures = data.columns.filter(column => column.kind === "measure").map(column => column.name);
  const x = prefer(numeric, ["weight_decay"]) || data.by[0] || "seed";
  const rest = data.by.filter(name => name !== x);
  const colour = prefer(rest, ["model.norm"]);
  const axes = { x, y: prefer(measures, ["train/intra_min"]), colour, panel: prefer(rest.filter(name => name !== colour), ["data.name"]) };
  axes.measure = prefer(data.history.measures, ["intra_min"]);
  for (const [name, value] of Object.entries(axes)) if (!location.hash.includes(`${name}=`)) state[name] = value;
}

function fillSelects() {
  const axes = document.querySelector("#axes");
  const measures = data.columns.filter(column => column.kind === "measure").map(column => column.name);
  const varied = ["seed", ...data.varied].filter(name => columns.get(name).values);
  const options = names => names.map(name => element("option", { value: name }, name));
  const groups = names => [element("optgroup", { label: "what varies" }, ...options(varied)), element("optgroup", { label: "measures" }, ...options(names))];
  const none = () => element("option", { value: NO_COLUMN }, "none");
  byName(axes, "y").append(...options(measures));
  const overTraining = data.history.measures.length ? [element("optgroup", { label: "training" }, ...options([EPOCH]))] : [];
  byName(axes, "x").append(...overTraining, ...groups(measures));
  byName(axes, "colour").append(none(), ...groups(measures));
  byName(axes, "panel").append(none(), ...options(varied));
  byName(document, "measure").append(...options(data.history.measures));
}

async function start() {
  read(await unpacked());
  readAddress();
  chooseAxes();
  fillSelects();
  const canDraw = window.vegaEmbed !== undefined, hasMeasures = state.y !== NO_COLUMN;
  const [chart, curves, section] = ["#chart", "#trajectories", "#chosen"].map(name => document.querySelector(name));
  const filter = document.querySelector("#filter"), search = filter.querySelector("input[type=search]");
  let shown = [];

  const drawChart = () => {
    if (!canDraw || !hasMeasures) return undefined;
    const { spec, words } = (state.x === EPOCH ? overEpochs : overview)(shown, chart.clientWidth);
    document.querySelector("#drawn").textContent = words;
    return draw(chart, spec, run => choose([run]));
  };
  const drawCurves = () => {
    if (!canDraw || !chosen.length || !state.measure) return undefined;
    const { spec, words } = trajectories(chosen, state.measure, curves.clientWidth);
    section.querySelector(".said").textContent = words;
    return draw(curves, spec);
  };
  const showRuns = () => showTable(shown, choose);
  const showAll = () => {
    shown = shownRuns();
    filter.querySelector("output").value = shown.length < count ? `${shown.length} of ${count} runs` : "";
    filter.querySelector("button").hidden = shown.length === count;
    writeAddress();
    showRuns();
    return drawChart();
  };
  const choose = (runs, isFar = false) => {
    const before = state.keep === "1" ? chosen : [];
    chosen = [...new Set([...runs, ...before])].slice(0, MOST_CHOSEN);
    writeAddress();
    showChosen(choose);
    showRuns();
    if (isFar) section.scrollIntoView();
    return drawCurves();
  };

  const everythingAgain = () => Promise.all([drawChart(), drawCurves()]);
  search.value = state.search;
  let waiting;
  search.addEventListener("input", () => {
    state.search = search.value;
    clearTimeout(waiting);
    waiting = setTimeout(showAll, 120);
  });
  filter.querySelector("button").addEventListener("click", () => {
    filters.clear();
    ranges.clear();
    state.search = search.value = "";
    buildFilters(showAll);
    showAll();
  });
  section.querySelector("button").addEventListener("click", () => {
    chosen = [];
    writeAddress();
    showChosen(choose);
    showRuns();
  });
  bind(document.querySelector("#axes"), () => { writeAddress(); drawChart(); });
  bind(section, () => { writeAddress(); drawCurves(); });
  buildFilters(showAll);
  buildTable(() => { writeAddress(); showRuns(); });
  buildDownloads(() => sorted(shown));
  document.querySelector("#note").textContent = [data.history.note, data.note].filter(Boolean).join(" ");
  filter.hidden = false;
  document.querySelector("#axes").hidden = !canDraw || !hasMeasures;
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", everythingAgain);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's keyboard changes the height alone
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(everythingAgain, 120);
  });
  showChosen(choose);
  await Promise.all([showAll(), drawCurves()]);
  follow();
  findPlaceAgain();
  document.documentElement.dataset.ready = "";
}

start().catch(error => {
  const place = document.querySelector("#broken");
  place.hidden = false;
  place.textContent = `This browser cannot show what follows (${error.message}); one of 2023 or later can.`;
  throw error;
});
