// What the reader has chosen. It is in the address, so that a link or a reload shows the same.

const state = {
  x: "", y: "", colour: "", panel: "", xscale: "auto", yscale: "auto", bands: "1",
  measure: "", mscale: "auto", keep: "", follow: "1", search: "", sort: "", down: "",
};
const filters = new Map(); // column: the texts that are wanted
const ranges = new Map(); // column: [from, to] in words
let chosen = []; // runs

/** Take over what the address says; names that these runs do not have are passed over. */
function readAddress() {
  for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
    const [kind, name] = [key.slice(0, key.indexOf(":")), key.slice(key.indexOf(":") + 1)];
    if (key in state) state[key] = value;
    else if (key === "run") chosen.push(runNamed(value));
    else if (!columns.has(name)) continue;
    else if (kind === "is") filters.set(name, [...(filters.get(name) ?? []), value]);
    else if (kind === "from") ranges.set(name, [value, ranges.get(name)?.[1] ?? ""]);
    else if (kind === "to") ranges.set(name, [ranges.get(name)?.[0] ?? "", value]);
  }
  chosen = [...new Set(chosen)].filter(run => run >= 0);
}

const runNamed = name => Array.from({ length: count }, (_, run) => run).findIndex(run => columns.get("run").at(run) === name);

function writeAddress() {
  const said = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== ""));
  filters.forEach((texts, name) => texts.forEach(text => said.append(`is:${name}`, text)));
  ranges.forEach(([from, to], name) => {
    if (from !== "") said.append(`from:${name}`, from);
    if (to !== "") said.append(`to:${name}`, to);
  });
  chosen.forEach(run => said.append("run", columns.get("run").at(run)));
  window.history.replaceState(null, "", `#${said}`);
}

/** Let the fields of a form and the state say the same. */
function bind(form, changed) {
  for (const field of form.querySelectorAll("select, input[type=checkbox]")) {
    if (!(field.name in state)) continue;
    if (field.type === "checkbox") field.checked = state[field.name] === "1";
    else if ([...field.options].some(option => option.value === state[field.name])) field.value = state[field.name];
    else state[field.name] = field.value;
    field.addEventListener("change", () => {
      state[field.name] = field.type === "checkbox" ? (field.checked ? "1" : "0") : field.value;
      changed();
    });
  }
}
