// The table of runs. Thousands of rows in a page make every click slow: the first are shown, and all if asked for.

const FEW_ROWS = 200;
let mostRows = FEW_ROWS;

function buildTable(changed) {
  const table = document.querySelector("#table");
  const headers = data.short.map(name => headerOf(columns.get(name), changed));
  table.className = data.short.includes("error") ? "errors" : "";
  table.replaceChildren(element("thead", {}, element("tr", {}, ...headers)), element("tbody"));
  const more = document.querySelector("button[name=more]");
  const all = () => { mostRows = Infinity; changed(); };
  more.addEventListener("click", all);
  window.addEventListener("beforeprint", all);
}

function headerOf(column, changed) {
  const button = element("button", { type: "button" }, ...breakable(column.name));
  const header = element("th", { scope: "col", className: column.numeric ? "number" : "" }, button);
  button.addEventListener("click", () => {
    state.down = state.sort === column.name && state.down !== "1" ? "1" : "";
    state.sort = column.name;
    changed();
  });
  return header;
}

/** A header may break between the parts of its name, so that it is no wider than its numbers. */
const breakable = name => name.split(/(?<=[/._])/).flatMap(part => [part, element("wbr")]);

/** Runs in the order that was asked for; what is missing comes last. */
function sorted(runs) {
  const column = columns.get(state.sort);
  if (!column) return runs;
  const words = new Intl.Collator("en", { numeric: true }), sign = state.down === "1" ? -1 : 1;
  const compare = (a, b) => isNumber(a) && isNumber(b) ? a - b : words.compare(String(a), String(b));
  const missing = run => column.at(run) === null;
  return [...runs].sort((a, b) => missing(a) || missing(b) ? missing(a) - missing(b) : sign * compare(column.at(a), column.at(b)));
}

function showTable(runs, choose) {
  const table = document.querySelector("#table"), shown = sorted(runs).slice(0, mostRows);
  table.tBodies[0].replaceChildren(...shown.map(run => rowOf(run, choose)));
  [...table.tHead.rows[0].cells].forEach((header, place) => {
    if (data.short[place] === state.sort) header.setAttribute("aria-sort", state.down === "1" ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  });
  const part = runs.length > shown.length;
  document.querySelector("#part").value = part ? `the first ${shown.length} of ${runs.length} are shown` : "";
  document.querySelector("button[name=more]").hidden = !part;
}

function rowOf(run, choose) {
  const cells = data.short.map(name => {
    const column = columns.get(name), value = column.at(run);
    if (name === "run") {
      const button = element("button", { type: "button" }, column.text(run));
      button.addEventListener("click", () => choose([run], true));
      return element("th", { scope: "row" }, button);
    }
    const text = value === null ? "—" : column.kind === "measure" ? short(value) : column.text(run);
    return element("td", { className: column.numeric ? "number" : "" }, text);
  });
  return element("tr", { className: chosen.includes(run) ? "chosen" : "" }, ...cells);
}
