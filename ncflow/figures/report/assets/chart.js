// Charts: specifications of Vega-Lite, made of the columns that the reader chose.

const MOST_PANELS = 12, MOST_COLOURS = 8, MOST_LINES = 300, MOST_DOTS = 4000;
const EPOCH = "epoch"; // which is no column of the runs
const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8B6F47"];
const views = new Map(); // of each place in the page, what is drawn there

/** Draw a specification in a place; what was asked for there before, and is not drawn yet, is not drawn at all. */
async function draw(place, spec, clicked) {
  const mine = {}, before = views.get(place);
  views.set(place, mine);
  before?.drawn?.finalize();
  if (spec === null) {
    place.replaceChildren();
    return;
  }
  const theme = isDark() ? "dark" : "light";
  // ast: expressions are interpreted, as the page's policy lets no text become code.
  const options = { mode: "vega-lite", ast: true, actions: false, renderer: "svg", defaultStyle: false, tooltip: { theme } };
  const drawn = await window.vegaEmbed(place, { ...spec, config: look() }, options);
  if (views.get(place) !== mine) return drawn.finalize();
  mine.drawn = drawn;
  drawn.view.addEventListener("click", (_, item) => item?.datum?.i !== undefined && clicked?.(item.datum.i));
}

const isDark = () => window.matchMedia("screen and (prefers-color-scheme: dark)").matches;

function look() {
  const of = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const [text, line] = [of("--text"), of("--line")];
  const words = { labelColor: text, titleColor: text, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 };
  return {
    background: null,
    font: "system-ui, sans-serif",
    axis: { ...words, gridColor: line, domainColor: line, tickColor: line, labelLimit: 140, titleLimit: 320 },
    legend: {
      ...words, orient: "top", labelLimit: 240, titleLimit: 240, columns: 4, symbolOpacity: 1,
      layout: { top: { anchor: "start", direction: "vertical" } },
    },
    header: { ...words, labelLimit: 240 },
    view: { stroke: line },
  };
}

/** Whether an axis is logarithmic: as asked, else where positive numbers lie far apart. */
function isLog(asked, values, far) {
  const positive = values.filter(value => value > 0);
  if (asked !== "auto") return asked === "log" && positive.length > 0;
  return positive.length === values.length && positive.length > 0 && largest(positive) / smallest(positive) >= far;
}

const largest = values => values.reduce((a, b) => Math.max(a, b), -Infinity);
const smallest = values => values.reduce((a, b) => Math.min(a, b), Infinity);

/** What the chart of all runs shows of some of them: rows, a specification, and words on what is not drawn. */
function overview(runs, width) {
  const [x, y, colour, panel] = ["x", "y", "colour", "panel"].map(name => columns.get(state[name]) ?? null);
  const finished = runs.filter(isFinished), said = [];
  const numbered = finished.filter(run => isNumber(y.at(run)) && (!x.numeric || isNumber(x.at(run))));
  const logs = {
    x: x.numeric && isLog(state.xscale, numbered.map(x.at), 8),
    y: isLog(state.yscale, numbered.map(y.at), 1000),
  };
  const positive = numbered.filter(run => (!logs.x || x.at(run) > 0) && (!logs.y || y.at(run) > 0));
  const { panels, drawn } = inPanels(positive, panel);
  note(runs.length - finished.length, "did not finish");
  note(finished.length - numbered.length, `without a number in ${y.name}${x.numeric ? ` or ${x.name}` : ""}`);
  note(numbered.length - positive.length, "not above 0, which a logarithmic axis cannot show");
  note(positive.length - drawn.length, `in other panels than the first ${MOST_PANELS}`);
  function note(number, why) {
    if (number) said.push(`${number} ${why}`);
  }
  const isSetting = x.kind === "config" || x.kind === "version" || x.name === "run";
  const parts = { x, y, colour, panel, panels, logs, drawn, means: state.bands === "1" && isSetting };
  const more = beside(parts);
  const words = [`${drawn.length} of ${runs.length} runs are drawn${said.length ? `; ${said.join(", ")}` : ""}.`];
  if (parts.means && more.length) words.push(`Lines of one colour differ in ${more.join(", ")}: nothing but seeds is averaged.`);
  if (colour && !isContinuous(parts) && levels(drawn.map(colour.at)).length > SERIES.length) words.push("Colours repeat.");
  return { spec: drawn.length ? specOf(parts, width) : null, words: words.join(" ") };
}

/** What tells the drawn runs apart beside what is shown. */
const beside = ({ x, colour, panel, drawn }) =>
  data.by.filter(name => ![x, colour, panel].some(one => one?.name === name) && levels(drawn.map(columns.get(name).at)).length > 1);

/** The values of the panels' column that have a panel, and the runs in these. */
function inPanels(runs, panel) {
  const panels = panel ? levels(runs.map(panel.at)).slice(0, MOST_PANELS) : [], first = new Set(panels);
  return { panels, drawn: panel ? runs.filter(run => first.has(panel.at(run))) : runs };
}

/** The chart of all runs over the epochs of their histories: a line for each setting, or for each run. */
function overEpochs(runs, width) {
  const place = state.y.indexOf("/"), [split, measure] = [state.y.slice(0, place), state.y.slice(place + 1)];
  const [colour, panel] = ["colour", "panel"].map(name => columns.get(state[name]) ?? null);
  if (!data.history.measures.includes(measure)) return { spec: null, words: `The histories in this page do not have ${state.y}.` };
  const finished = runs.filter(isFinished), rowsOf = run => histories[run].filter(row => data.history.split[row] === split);
  const measured = finished.filter(run => rowsOf(run).some(row => Number.isFinite(historyValue(measure, row))));
  const { panels, drawn } = inPanels(measured, panel);
  const means = state.bands === "1";
  const every = [...grouped(drawn, means ? run => keyOf(run) : run => run).values()], lines = every.slice(0, MOST_LINES);
  const shown = lines.flat(), values = shown.flatMap(rowsOf).map(row => historyValue(measure, row)).filter(Number.isFinite);
  const logs = { x: state.xscale === "log", y: isLog(state.yscale, values, 1000) };
  const rows = lines.flatMap((members, line) => lineRows(members, line, rowsOf, measure, logs, smallest(values.filter(value => value > 0))))
    .map(row => ({ ...row, c: colour && (colour.numeric ? colour.at(row.of) : colour.text(row.of)), p: panel && panel.text(row.of) }));
  const parts = { x: { name: EPOCH, numeric: true }, y: { name: state.y }, colour, panel, panels, logs, drawn: shown, means };
  const words = [`The histories of ${shown.length} of ${runs.length} runs are drawn`];
  if (runs.length > finished.length) words.push(`${runs.length - finished.length} did not finish`);
  if (finished.length > measured.length) words.push(`${finished.length - measured.length} have none of ${state.y}`);
  if (measured.length > drawn.length) words.push(`${measured.length - drawn.length} are in other panels than the first ${MOST_PANELS}`);
  if (every.length > lines.length) words.push(`of ${every.length} lines the first ${MOST_LINES} are drawn: filter the runs`);
  if (rows.some(row => row.few)) words.push("where a line has fewer seeds than elsewhere, its mean is of these");
  if (logs.x || (logs.y && smallest(values) <= 0)) words.push("what is not above 0 a logarithmic axis cannot show");
  const more = beside(parts);
  if (means && more.length) words.push(`lines of one colour differ in ${more.join(", ")}, as nothing but seeds is averaged`);
  return { spec: rows.length ? framed(parts, width, rows, linesOf(parts, rows)) : null, words: `${words.join("; ")}.` };
}

/** A row for each epoch of a line: mean and standard deviation of its runs' values, which differ in their seed alone. */
function lineRows(members, line, rowsOf, measure, logs, least) {
  const at = new Map();
  for (const row of members.flatMap(rowsOf)) {
    const value = historyValue(measure, row), epoch = data.history.epoch[row];
    if (!Number.isFinite(value) || (logs.x && epoch <= 0)) continue;
    if (!at.has(epoch)) at.set(epoch, []);
    at.get(epoch).push(value);
  }
  const most = largest([...at.values()].map(values => values.length)), [of] = members;
  return [...at].map(([x, values]) => ({ x, ...summary(values) })).filter(({ mean }) => !logs.y || mean > 0).map(({ x, n, mean, sd }) => ({
    x, y: mean, n, sd, line, of, few: n < most, settings: settingsOf(of), run: columns.get("run").text(of),
    ...(members.length === 1 ? { i: of } : {}),
    lo: sd === null ? null : logs.y ? Math.max(mean - sd, least) : mean - sd, hi: sd === null ? null : mean + sd,
  }));
}

function linesOf(parts, rows) {
  const encoding = { ...sharedEncoding(parts), detail: { field: "line" } };
  const bounds = { y: { ...encoding.y, field: "lo" }, y2: { field: "hi" }, tooltip: null };
  const tooltip = parts.means ? meanTooltipOf(parts) : [said("run", "run"), ...meanTooltipOf(parts).filter(({ field }) => !["n", "sd"].includes(field))];
  const dots = { type: "point", filled: true, size: rows.length > MOST_DOTS ? 4 : 22, opacity: 1, ...(parts.means ? {} : { cursor: "pointer" }) };
  const bands = { transform: [{ filter: "isValid(datum.lo)" }], mark: { type: "area", opacity: 0.2 }, encoding: { ...encoding, ...bounds } };
  return [
    ...(rows.some(row => row.lo !== null) ? [bands] : []),
    { mark: { type: "line", strokeWidth: 1.5, opacity: parts.means ? 1 : 0.5 }, encoding },
    ...(rows.length > MOST_DOTS ? [] : [{ mark: dots, encoding: { ...encoding, tooltip } }]),
  ];
}

const isContinuous = ({ colour, drawn }) => colour.numeric && levels(drawn.map(colour.at)).length > MOST_COLOURS;

function specOf(parts, width) {
  const { x, means } = parts;
  const values = [...runRows(parts), ...(means ? meanRows(parts) : [])];
  const of = kind => [{ filter: `datum.kind == '${kind}'` }];
  const encoding = sharedEncoding(parts);
  const bounds = { y: { ...encoding.y, field: "lo" }, y2: { field: "hi" }, tooltip: null };
  const spread = [...of("mean"), { filter: "isValid(datum.lo)" }];
  const layer = [
    {
      transform: of("run"),
      mark: { type: "point", size: means ? 24 : 40, opacity: means ? 0.55 : 0.8, cursor: "pointer", filled: !means },
      encoding: { ...encoding, ...shapeOf(parts), tooltip: tooltipOf(parts) },
    },
  ];
  if (means && x.numeric) {
    layer.unshift(
      { transform: spread, mark: { type: "area", opacity: 0.25 }, encoding: { ...encoding, ...bounds, detail: { field: "series" } } },
      { transform: of("mean"), mark: { type: "line" }, encoding: { ...encoding, detail: { field: "series" } } },
    );
  } else if (means) {
    layer.unshift({ transform: spread, mark: { type: "rule", strokeWidth: 2 }, encoding: { ...encoding, ...bounds } });
  }
  if (means) {
    layer.push({
      transform: of("mean"),
      mark: { type: "point", size: 55, filled: true, opacity: 1 },
      encoding: { ...encoding, ...shapeOf(parts), tooltip: meanTooltipOf(parts) },
    });
  }
  return framed(parts, width, values, layer);
}

/** Layers in a panel of their own, or in one for each value of the panels' column. */
function framed({ panel, panels }, width, values, layer) {
  const columnsOfPanels = Math.max(1, Math.min(panels.length || 1, Math.floor(width / 280)));
  const size = {
    width: Math.max(140, Math.floor((width - 80) / columnsOfPanels) - 24 * (columnsOfPanels > 1)),
    height: Math.min(360, Math.max(200, Math.floor(width / columnsOfPanels / 1.6))),
  };
  if (!panel) return { data: { values }, ...size, layer };
  const header = { title: panel.name };
  return {
    data: { values },
    facet: { field: "p", type: "nominal", sort: panels.map(textOf), ...header },
    columns: columnsOfPanels,
    spec: { ...size, layer },
  };
}

const settingsOf = run => data.by.map(name => `${name} ${columns.get(name).text(run)}`).join(", ");

function runRows({ x, y, colour, panel, drawn }) {
  return drawn.map(run => ({
    kind: "run", i: run, run: columns.get("run").text(run), seed: columns.get("seed").text(run), settings: settingsOf(run),
    x: x.numeric ? x.at(run) : x.text(run), y: y.at(run),
    c: colour && (colour.numeric ? colour.at(run) : colour.text(run)), p: panel && panel.text(run),
  }));
}

/** A row for the mean of each group of runs that differ in their seed alone; mean and standard deviation as they are. */
function meanRows({ x, y, colour, panel, drawn, logs }) {
  const least = smallest(drawn.map(y.at));
  return [...grouped(drawn, run => keyOf(run) + JSON.stringify(x.at(run))).values()].map(runs => {
    const [first] = runs, { n, mean, sd } = summary(runs.map(y.at));
    return {
      kind: "mean", n, sd, y: mean, x: x.numeric ? x.at(first) : x.text(first), series: keyOf(first, [x.name]),
      lo: sd === null ? null : logs.y ? Math.max(mean - sd, least) : mean - sd, hi: sd === null ? null : mean + sd,
      settings: settingsOf(first), c: colour && (colour.numeric ? colour.at(first) : colour.text(first)), p: panel && panel.text(first),
    };
  });
}

function sharedEncoding(parts) {
  const { x, y, colour, drawn, logs } = parts;
  const quantitative = (field, title, log) => ({ field, type: "quantitative", title, scale: log ? { type: "log" } : { zero: false } });
  const encoding = {
    x: x.numeric
      ? quantitative("x", x.name, logs.x)
      : { field: "x", type: "nominal", title: x.name, sort: levels(drawn.map(x.at)).map(textOf), axis: { labelAngle: -30 } },
    y: quantitative("y", y.name, logs.y),
  };
  if (x.numeric) encoding.x.axis = { labelFlush: true, tickCount: 5, ...(logs.x ? { format: "~g", grid: false } : {}) };
  if (colour && isContinuous(parts)) {
    const log = isLog("auto", drawn.map(colour.at).filter(isNumber), 50);
    encoding.color = { field: "c", type: "quantitative", title: colour.name, scale: { scheme: "viridis", ...(log ? { type: "log" } : {}) } };
  } else if (colour) {
    const domain = levels(drawn.map(colour.at)).map(value => colour.numeric ? value : textOf(value));
    const range = domain.map((value, place) => (colour.name === "model.norm" && data.colours[value]) || SERIES[place % SERIES.length]);
    encoding.color = { field: "c", type: "nominal", title: colour.name, scale: { domain, range } };
  } else {
    encoding.color = { value: SERIES[0] };
  }
  return encoding;
}

/** Shapes beside colours, for those who cannot tell these apart. */
function shapeOf(parts) {
  const { colour } = parts;
  if (!colour || isContinuous(parts)) return {};
  const { domain } = sharedEncoding(parts).color.scale;
  return domain.length > 6 ? {} : { shape: { field: "c", type: "nominal", title: colour.name, scale: { domain } } };
}

const said = (field, title, type = "nominal") => ({ field, title, type, ...(type === "quantitative" ? { format: ".5~g" } : {}) });

const tooltipOf = ({ x, y }) => [
  said("run", "run"), said("y", y.name, "quantitative"), said("x", x.name, x.numeric ? "quantitative" : "nominal"),
  said("seed", "seed"), said("settings", "settings"),
];

const meanTooltipOf = ({ x, y }) => [
  said("n", "mean of runs"), said("y", y.name, "quantitative"), said("sd", "standard deviation", "quantitative"),
  said("x", x.name, x.numeric ? "quantitative" : "nominal"), said("settings", "settings"),
];

/** The measure over the epochs of some runs: training solid, test dashed. */
function trajectories(runs, measure, width) {
  const { epoch, split } = data.history;
  const every = runs.flatMap(run => histories[run].map(row => ({
    i: run, run: columns.get("run").text(run), epoch: epoch[row], split: split[row], y: historyValue(measure, row),
  })));
  const numbered = every.filter(row => Number.isFinite(row.y));
  const log = isLog(state.mscale, numbered.map(row => row.y), 100);
  const values = numbered.filter(row => !log || row.y > 0);
  const lost = numbered.length - values.length;
  const words = `Training is solid, test dashed.${lost ? ` ${lost} values are not above 0, which a logarithmic axis cannot show.` : ""}`;
  const none = every.length ? `no finite ${measure} in their histories` : "no history";
  if (!values.length) return { spec: null, words: lost ? words : `These runs have ${none}.` };
  const domain = runs.map(run => columns.get("run").text(run));
  const spec = {
    data: { values },
    width: Math.max(140, width - 80),
    height: 260,
    mark: { type: "line", point: { size: 22, filled: true } },
    encoding: {
      x: { field: "epoch", type: "quantitative", title: "epoch", axis: { tickCount: Math.ceil(width / 120) } },
      y: { field: "y", type: "quantitative", title: measure, scale: log ? { type: "log" } : { zero: false } },
      color: { field: "run", type: "nominal", title: null, scale: { domain, range: domain.map((_, place) => SERIES[place % SERIES.length]) },
        legend: { columns: width < 700 ? 1 : 2, labelLimit: Math.min(480, width - 110) } },
      strokeDash: { field: "split", type: "nominal", title: null, scale: { domain: ["train", "test"], range: [[1, 0], [4, 3]] },
        legend: null },
      detail: { field: "i" },
      tooltip: [said("run", "run"), said("split", "split"), said("epoch", "epoch"), said("y", measure, "quantitative")],
    },
  };
  return { spec, words };
}
