// Files made in the page, of what is embedded in it.

function buildDownloads(shown) {
  const files = {
    runs: ["runs.csv", () => runsCsv(shown())],
    history: ["history.csv", () => historyCsv(shown())],
    table: ["means.csv", () => meansCsv(shown())],
    latex: ["means.tex", () => meansLatex(shown())],
  };
  for (const button of document.querySelectorAll("#downloads button")) {
    const [name, content] = files[button.name];
    button.addEventListener("click", () => save(name, content()));
  }
}

function save(name, content) {
  const address = URL.createObjectURL(new Blob([content], { type: name.endsWith("csv") ? "text/csv" : "text/plain" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const csv = rows => rows.map(row => `${row.map(csvField).join(",")}\n`).join("");

function csvField(value) {
  const text = value === null ? "" : String(value).replace(/Infinity$/, "inf");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A row a run, with all of its columns and all digits. */
const runsCsv = runs => csv([data.columns.map(column => column.name), ...runs.map(run => data.columns.map(({ name }) => columns.get(name).at(run)))]);

/** A row a run, epoch and split. */
function historyCsv(runs) {
  const { measures, epoch, split, values } = data.history;
  const rows = runs.flatMap(run => histories[run].map(row => [
    columns.get("run").at(run), columns.get("run_id").at(run), epoch[row], split[row], ...measures.map(name => values[name][row]),
  ]));
  return csv([["run", "run_id", "epoch", "split", ...measures], ...rows]);
}

/** What the table of means has: the measures of the table of runs, and that of the chart. */
const measuresOfMeans = () => [...new Set([state.y, ...data.short])].filter(name => columns.get(name)?.kind === "measure");

/** A row a setting; the standard deviation of one run is missing. */
function meansCsv(runs) {
  const measures = measuresOfMeans();
  const head = [...data.by, "runs", ...measures.flatMap(name => [name, `${name} sd`, `${name} n`])];
  const rows = summaries(runs, measures).map(row => [...row.setting, row.runs, ...row.summaries.flatMap(({ mean, sd, n }) => [mean, sd, n])]);
  return csv([head, ...rows]);
}

function meansLatex(runs) {
  const measures = measuresOfMeans();
  const lines = summaries(runs, measures).map(row =>
    [...row.setting.map(value => latexText(textOf(value))), String(row.runs), ...row.summaries.map(latexNumber)]);
  const head = [...data.by, "runs", ...measures].map(latexText);
  const body = lines.map(line => `${line.join(" & ")} \\\\\n`).join("");
  return `% Means and standard deviations (divisor n - 1) over seeds, of finished runs.\n` +
    `\\begin{tabular}{${"l".repeat(data.by.length)}${"r".repeat(measures.length + 1)}}\n\\hline\n${head.join(" & ")} \\\\\n\\hline\n${body}\\hline\n\\end{tabular}\n`;
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
const latexText = text => text.replace(/\s+/g, " ").replace(/[\\{}$&#_%~^]/g, letter => LATEX[letter] ?? `\\${letter}`);

/** Mean and standard deviation to the second significant digit of the latter; of one run, the number with 4 digits. */
function latexNumber({ mean, sd }) {
  if (mean === null) return "--";
  if (sd === null || sd === 0) return `$${latexExponent(Number(mean.toPrecision(4)).toString())}${sd === 0 ? " \\pm 0" : ""}$`;
  const last = Math.floor(Math.log10(sd)) - 1; // the power of ten of that digit
  if (last < -6 || last > 2) {
    const power = Math.floor(Math.log10(Math.max(Math.abs(mean), sd)));
    const digits = Math.max(0, power - last);
    return `$(${(mean / 10 ** power).toFixed(digits)} \\pm ${(sd / 10 ** power).toFixed(digits)}) \\cdot 10^{${power}}$`;
  }
  const digits = Math.max(0, -last);
  return `$${mean.toFixed(digits)} \\pm ${sd.toFixed(digits)}$`;
}

const latexExponent = text => text.replace(/e\+?(-?\d+)$/, " \\cdot 10^{$1}");
