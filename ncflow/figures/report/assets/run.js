// The chosen runs: their trajectories, and a fold for each with all that the page knows of it.

const MOST_NEIGHBOURS = 12, MOST_CHOSEN = 40;

/** The chosen runs' folds; those that are there already stay as the reader left them. */
function showChosen(choose) {
  const section = document.querySelector("#chosen"), place = section.querySelector(".folds");
  const there = new Map([...place.children].map(fold => [Number(fold.dataset.run), fold]));
  section.hidden = chosen.length === 0;
  place.replaceChildren(...chosen.map(run => there.get(run) ?? foldOf(run, choose)));
}

function foldOf(run, choose) {
  const fold = element("details", { className: "run", open: true });
  fold.dataset.run = run;
  const seeds = element("button", { type: "button" }, "choose all its seeds");
  seeds.addEventListener("click", () => choose(grouped(everyRun(), other => keyOf(other)).get(keyOf(run)).slice(0, MOST_CHOSEN)));
  const error = columns.get("error").at(run);
  const command = data.commands[run], log = data.logs[run];
  fold.append(
    element("summary", {}, columns.get("run").text(run)),
    element("p", {}, `${columns.get("status").text(run)}${error === null ? "" : `: ${error}`} `, seeds),
    element("h4", {}, "What varies, and its neighbours: runs that differ in that alone"), neighbours(run, choose),
    element("h4", {}, "The command that repeats it"),
    command === null ? element("p", {}, "Its folder does not say.") : element("pre", { className: "command" }, command),
    element("details", {}, element("summary", {}, "Final measures"), measuresOf(run)),
    element("h4", {}, "The end of its log"),
    log ? element("pre", {}, log)
      : element("p", {}, log === null ? "Left out, as these are many runs and this one finished; its folder has it." : "There is none."),
  );
  return fold;
}

/** A row for each option that varies: this run's value, and the runs that differ in it alone. */
function neighbours(run, choose) {
  const names = [...new Set(["seed", ...data.by])].filter(name => columns.get(name).values);
  const mine = names.map(name => columns.get(name).text(run));
  const found = names.map(() => []);
  for (const other of everyRun()) {
    const different = names.flatMap((name, place) => columns.get(name).text(other) === mine[place] ? [] : [place]);
    if (different.length === 1) found[different[0]].push(other);
  }
  const rows = names.map((name, place) => {
    const others = levels(found[place].map(columns.get(name).at)).map(value => found[place].find(other => columns.get(name).at(other) === value));
    const buttons = others.slice(0, MOST_NEIGHBOURS).map(other => {
      const button = element("button", { type: "button", title: columns.get("run").text(other) }, columns.get(name).text(other));
      button.addEventListener("click", () => choose([other]));
      return button;
    });
    const more = others.length > buttons.length ? ` and ${others.length - buttons.length} more` : "";
    return element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, mine[place]), element("td", {}, ...buttons, more));
  });
  const head = element("tr", {}, ...["option", "this run", "neighbours"].map(text => element("th", { scope: "col" }, text)));
  return rows.length ? element("div", { className: "wide" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))) : element("p", {}, "Nothing varies.");
}

function measuresOf(run) {
  const own = data.columns.filter(({ name, kind }) => kind === "measure" && columns.get(name).at(run) !== null);
  return own.length
    ? element("dl", {}, ...own.map(({ name }) => element("div", {}, element("dt", {}, name), element("dd", {}, columns.get(name).text(run)))))
    : element("p", {}, "It has none.");
}
