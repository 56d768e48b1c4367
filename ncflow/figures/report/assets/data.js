// What the page holds, and how its values read.

let data, count, columns, histories;

/** The embedded JSON: of runs, histories, logs and commands. */
async function unpacked() {
  const letters = atob(document.querySelector("#data").textContent);
  const bytes = Uint8Array.from(letters, letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** Make columns that know a run's value and text, and find each run's rows of history. */
function read(found) {
  data = found;
  count = data.commands.length;
  columns = new Map(data.columns.map(column => [column.name, withAccess(column)]));
  histories = Array.from({ length: count }, () => []);
  data.history.run.forEach((run, row) => histories[run].push(row));
}

function withAccess(column) {
  const at = column.values ? run => column.values[run] : () => column.value;
  const values = column.values ?? [column.value];
  const numeric = values.some(isNumber) && values.every(value => value === null || isNumber(value));
  return { ...column, at, numeric, text: run => textOf(at(run)) };
}

const isNumber = value => typeof value === "number";
const textOf = value => value === null ? "not set" : String(value);

/** A number as a table shows it; the whole number is in the downloads. */
const short = (value, digits = 5) => isNumber(value) ? String(Number(value.toPrecision(digits))) : textOf(value);

/** A measure of a row of history: all are numbers, of which some are infinite, and some missing. */
function historyValue(measure, row) {
  const value = data.history.values[measure][row];
  return value === null ? NaN : Number(value);
}

/** Different values: numbers by size, then words, then what is not set. */
function levels(values) {
  const words = new Intl.Collator("en", { numeric: true });
  const place = value => value === null ? 2 : isNumber(value) ? 0 : 1;
  const compare = (a, b) => isNumber(a) && isNumber(b) ? a - b : words.compare(String(a), String(b));
  return [...new Set(values)].sort((a, b) => place(a) - place(b) || compare(a, b));
}

/** An element with properties and children; text stays text. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const byName = (form, name) => form.querySelector(`[name="${name}"]`);
