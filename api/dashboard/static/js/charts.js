// Charts of metrics by step, as uPlot draws them.

import { numberText, titleOf } from "./words.js";

const style = () => {
  const read = getComputedStyle(document.documentElement);
  return (name) => read.getPropertyValue(name).trim();
};

/** One chart of one metric; the numbers under the cursor are written into its caption.
 *
 * A line has a `label`, an optional `isHidden`, and `values(key)`: step -> value, null where it was not finite. With `bands(key)`,
 * step -> [low, high], an area is drawn around it.
 */
export class Chart {
  constructor(grid, key, lines, note = "") {
    this.lines = lines;
    this.key = key;
    this.figure = document.createElement("figure");
    this.figure.className = "curve";
    const caption = document.createElement("figcaption");
    const title = document.createElement("span");
    title.textContent = titleOf(key);
    title.title = note ? `${key}: ${note}` : key;
    this.reading = document.createElement("span");
    this.reading.className = "latest";
    caption.append(title, this.reading);
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("role", "img");
    const told = document.createElement("p");
    told.className = "note";
    told.textContent = note;
    told.title = note;
    this.figure.append(caption, ...(note ? [told] : []), this.plot);
    grid.append(this.figure);
    this.make();
  }

  /** Draws other lines of the same metric. */
  show(lines) {
    this.lines = lines;
    this.make();
  }

  data() {
    const values = this.lines.map((line) => line.values(this.key));
    const steps = [...new Set(values.flatMap((points) => [...points.keys()]))].sort((a, b) => a - b);
    const data = [steps, ...values.map((points) => steps.map((step) => points.get(step)))]; // undefined: no value here; null: a gap
    for (const line of this.banded()) {
      const bands = line.bands(this.key);
      for (const side of [0, 1]) data.push(steps.map((step) => bands.get(step)?.[side]));
    }
    return data;
  }

  banded() {
    return this.lines.filter((line) => line.bands);
  }

  make() {
    const color = style();
    const axis = {
      stroke: color("--faint"), font: `11px ${color("--sans")}`,
      grid: { stroke: color("--line"), width: 1 }, ticks: { show: false },
    };
    this.columns = this.data();
    const isSparse = this.columns[0].length < 40;
    this.uplot?.destroy();
    this.uplot = new window.uPlot({
      width: Math.max(this.plot.clientWidth, 120),
      height: 172,
      padding: [8, 10, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => padded(low, high) } },
      axes: [
        { ...axis, size: 24, gap: 4, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
        { ...axis, size: (_, labels) => 14 + 6.2 * Math.max(3, ...(labels ?? []).map((label) => label.length)), gap: 6, values: (_, ticks) => ticks.map(numberText) },
      ],
      cursor: { y: false, sync: { key: "step" }, points: { size: 6 } },
      legend: { show: false },
      series: [{}, ...this.lines.map((line, index) => ({
        label: line.label, stroke: color(`--series-${index % 8 + 1}`), width: 1.5, spanGaps: false, show: !line.isHidden,
        dash: index < 8 ? [] : [5, 3],
        points: { show: isSparse, size: 4, fill: color(`--series-${index % 8 + 1}`) },
      })), ...this.banded().flatMap((line) => [line, line].map(() => ({ width: 0, points: { show: false }, show: !line.isHidden })))],
      bands: this.banded().map((line, index) => ({
        series: [this.lines.length + 2 + 2 * index, this.lines.length + 1 + 2 * index],
        fill: `${color(`--series-${this.lines.indexOf(line) % 8 + 1}`)}2b`,
      })),
      hooks: { setCursor: [(chart) => this.read(chart.cursor.idx)] },
    }, this.columns, this.plot);
    this.read(null);
  }

  update() {
    this.columns = this.data();
    this.uplot.setData(this.columns);
    this.read(null);
  }

  /** Writes the values at one index of the steps, or the newest ones. */
  read(index) {
    const [steps, ...columns] = this.columns;
    const lines = columns.slice(0, this.lines.length).filter((_, number) => !this.lines[number].isHidden);
    const at = index ?? steps.length - 1;
    if (at < 0) return;
    const here = lines.map((line) => (index === null ? line.findLast((value) => value !== undefined) : line[at]));
    const known = here.filter((value) => value !== undefined);
    const texts = known.length > 4 ? [`${numberText(Math.min(...known))} to ${numberText(Math.max(...known))}`] : known.map(numberText);
    const counts = this.lines.filter((line) => line.count && !line.isHidden).map((line) => line.count(this.key, steps[at]));
    const seeds = counts.length === 1 && counts[0] > 0 ? ` (n ${counts[0]})` : "";
    this.reading.textContent = `${texts.join(" \u00b7 ")}${seeds}${index === null ? "" : ` at step ${steps[at]}`}`;
    this.plot.setAttribute("aria-label", `${titleOf(this.key)} over ${steps.length} steps, latest ${texts.join(", ")}`);
  }
}

/** A range that leaves air around the values, also around one single value. */
function padded(low, high) {
  if (low === null || high === null) return [0, 1];
  const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const floor = low >= 0 && low - air < 0 ? 0 : low - air;
  return [floor, high + air];
}

/** Keeps charts as wide as their grid, and in the colours of the reader's scheme. */
export function keepFitting(grid, charts) {
  let width = grid.clientWidth;
  new ResizeObserver(() => {
    if (grid.clientWidth === width) return;
    width = grid.clientWidth;
    for (const chart of charts.values()) chart.uplot.setSize({ width: Math.max(chart.plot.clientWidth, 120), height: 172 });
  }).observe(grid);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of charts.values()) chart.make();
  });
}
