// Means over seeds: of finished runs that differ in nothing but their seed.

const isFinished = run => columns.get("status").at(run) === "done";

/** What tells runs apart beside their seed, as one key; of some columns less. */
const keyOf = (run, without = []) =>
  JSON.stringify(data.by.filter(name => !without.includes(name)).map(name => columns.get(name).at(run)));

/** Runs by key. */
function grouped(runs, key) {
  const groups = new Map();
  for (const run of runs) {
    const own = key(run);
    if (!groups.has(own)) groups.set(own, []);
    groups.get(own).push(run);
  }
  return groups;
}

/** Number, mean and standard deviation (divisor n - 1) of the values that are finite numbers; null where there is none. */
function summary(values) {
  const finite = values.filter(Number.isFinite), n = finite.length;
  if (n === 0) return { n, mean: null, sd: null };
  const mean = finite.reduce((sum, value) => sum + value, 0) / n;
  const squares = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { n, mean, sd: n > 1 ? Math.sqrt(squares / (n - 1)) : null };
}

/** A row for each setting of the finished ones of some runs: its values, its number of runs, and a summary of each measure. */
function summaries(runs, measures) {
  return [...grouped(runs.filter(isFinished), run => keyOf(run)).values()].map(members => ({
    setting: data.by.map(name => columns.get(name).at(members[0])),
    runs: members.length,
    summaries: measures.map(name => summary(members.map(columns.get(name).at))),
  }));
}
