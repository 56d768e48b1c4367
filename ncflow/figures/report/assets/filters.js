// Which runs are shown: by words in any of their columns, by values, by ranges of numbers.

const MOST_BOXES = 40; // of a column with more values, a range or words are asked for

const everyRun = () => Array.from({ length: count }, (_, run) => run);

/** A line of words a run, in which is searched. */
let searched;

function shownRuns() {
  const wanted = state.search.toLowerCase();
  searched ??= everyRun().map(run => data.short.map(name => columns.get(name).text(run)).join("\n").toLowerCase());
  return everyRun().filter(run => searched[run].includes(wanted) && isWanted(run));
}

function isWanted(run) {
  for (const [name, texts] of filters) if (texts.length && !texts.includes(columns.get(name).text(run))) return false;
  for (const [name, [from, to]] of ranges) {
    const value = columns.get(name).at(run);
    if (from !== "" && !(isNumber(value) && value >= Number(from))) return false;
    if (to !== "" && !(isNumber(value) && value <= Number(to))) return false;
  }
  return true;
}

/** A fold with the values of each column that varies: first of those that tell runs apart, then of what follows from them. */
function buildFilters(changed) {
  const names = ["status", "seed", ...data.varied].filter(name => columns.get(name).values);
  const first = names.filter(name => ["status", "seed", ...data.by].includes(name)), others = names.filter(name => !first.includes(name));
  const folds = some => some.map(name => filterOf(columns.get(name), changed));
  const more = element("details", { className: "filters" }, element("summary", {}, "what else varies"), ...folds(others));
  document.querySelector("#filter .filters").replaceChildren(...folds(first), ...(others.length ? [more] : []));
}

function filterOf(column, changed) {
  const values = levels(column.values);
  const said = element("small");
  const body = element("div");
  const update = () => {
    const texts = filters.get(column.name) ?? [], [from, to] = ranges.get(column.name) ?? ["", ""];
    said.textContent = texts.length ? ` ${texts.join(", ")}` : from || to ? ` ${from} to ${to}` : "";
  };
  if (values.length <= MOST_BOXES) {
    const counts = grouped(everyRun(), column.text);
    body.append(...values.map(value => boxOf(column.name, textOf(value), counts.get(textOf(value)).length, update, changed)));
  } else if (column.numeric) {
    body.append(...["from", "to"].map((word, end) => boundOf(column.name, word, end, update, changed)));
  } else {
    body.append("Too many values for a list: search for its words above.");
  }
  update();
  return element("details", {}, element("summary", {}, column.name, said), body);
}

function boxOf(name, text, number, update, changed) {
  const box = element("input", { type: "checkbox", checked: (filters.get(name) ?? []).includes(text) });
  box.addEventListener("change", () => {
    const others = (filters.get(name) ?? []).filter(other => other !== text);
    filters.set(name, box.checked ? [...others, text] : others);
    update();
    changed();
  });
  return element("label", {}, box, ` ${text} `, element("small", {}, `(${number})`));
}

function boundOf(name, word, end, update, changed) {
  const field = element("input", { type: "number", step: "any", value: ranges.get(name)?.[end] ?? "" });
  field.addEventListener("change", () => {
    const bounds = [...(ranges.get(name) ?? ["", ""])];
    bounds[end] = field.value;
    ranges.set(name, bounds);
    update();
    changed();
  });
  return element("label", {}, `${word} `, field);
}
