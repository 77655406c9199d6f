// Live curves: one chart a metric, one line a run. The page names the runs and the stream; values come from /v1/runs/{id}/metrics.

import { follow } from "./streams.js";
import { inOrder, numberText, titleOf } from "./words.js";

const MAX_POINTS = 1000;
const PAUSE_MS = 1500;
const POLL_MS = 5000;

const style = () => {
  const read = getComputedStyle(document.documentElement);
  return (name) => read.getPropertyValue(name).trim();
};

/** The points of one run: metric -> step -> value (null where it was not finite). */
class Run {
  constructor(element) {
    this.id = element.dataset.run;
    this.label = element.dataset.label;
    this.isLive = element.dataset.live === "true";
    this.swatch = element.querySelector(".swatch");
    this.metrics = new Map();
    this.lastStep = -1;
  }

  /** Fetches what is new; true where something was. */
  async load() {
    const query = new URLSearchParams({ from_step: String(this.lastStep + 1), max_points: String(MAX_POINTS) });
    const response = await fetch(`/v1/runs/${this.id}/metrics?${query}`, { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`${response.status}`);
    let isNew = false;
    for (const series of (await response.json()).series) {
      if (!this.metrics.has(series.key)) this.metrics.set(series.key, new Map());
      const values = this.metrics.get(series.key);
      for (const point of series.points) {
        values.set(point.step, point.value);
        this.lastStep = Math.max(this.lastStep, point.step);
        isNew = true;
      }
    }
    return isNew;
  }
}

/** One chart; the numbers under the cursor are written into its caption. */
class Chart {
  constructor(board, key) {
    this.board = board;
    this.key = key;
    this.figure = document.createElement("figure");
    this.figure.className = "curve";
    const caption = document.createElement("figcaption");
    const title = document.createElement("span");
    title.textContent = titleOf(key);
    title.title = key;
    this.reading = document.createElement("span");
    this.reading.className = "latest";
    caption.append(title, this.reading);
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("role", "img");
    this.figure.append(caption, this.plot);
    board.grid.append(this.figure);
    this.make();
  }

  data() {
    const runs = this.board.runs.map((run) => run.metrics.get(this.key) ?? new Map());
    const steps = [...new Set(runs.flatMap((values) => [...values.keys()]))].sort((a, b) => a - b);
    return [steps, ...runs.map((values) => steps.map((step) => values.get(step)))]; // undefined: no value here; null: a gap
  }

  make() {
    const color = style();
    const axis = {
      stroke: color("--faint"), font: `11px ${color("--sans")}`,
      grid: { stroke: color("--line"), width: 1 }, ticks: { show: false },
    };
    const isSparse = this.data()[0].length < 40;
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
      series: [{}, ...this.board.runs.map((run, index) => ({
        label: run.label, stroke: color(`--series-${index % 8 + 1}`), width: 1.5, spanGaps: false,
        points: { show: isSparse, size: 4, fill: color(`--series-${index % 8 + 1}`) },
      }))],
      hooks: { setCursor: [(chart) => this.read(chart.cursor.idx)] },
    }, this.data(), this.plot);
    this.read(null);
  }

  update() {
    this.uplot.setData(this.data());
    this.read(null);
  }

  /** Writes the values at one index of the steps, or the newest ones. */
  read(index) {
    const [steps, ...lines] = this.data();
    const at = index ?? steps.length - 1;
    if (at < 0) return;
    const here = lines.map((line) => (index === null ? line.findLast((value) => value !== undefined) : line[at]));
    const known = here.filter((value) => value !== undefined);
    const texts = known.length > 4 ? [`${numberText(Math.min(...known))} to ${numberText(Math.max(...known))}`] : known.map(numberText);
    this.reading.textContent = `${texts.join(" \u00b7 ")}${index === null ? "" : ` at step ${steps[at]}`}`;
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

class Board {
  constructor(root) {
    this.root = root;
    this.grid = root.querySelector(".curves");
    this.hint = this.grid.querySelector(".empty");
    this.light = root.querySelector(".live");
    this.runs = [...root.querySelectorAll("[data-run]")].map((element) => new Run(element));
    this.charts = new Map();
    this.runs.forEach((run, index) => { if (run.swatch) run.swatch.classList.add(`series-${index % 8 + 1}`); });
    this.isLoading = false;
    this.isWanted = false;
  }

  async load() {
    if (this.isLoading) { this.isWanted = true; return; }
    this.isLoading = true;
    try {
      const news = await Promise.all(this.runs.map((run) => run.load()));
      if (news.some(Boolean)) this.draw();
    } catch {
      this.light?.classList.replace("on", "off");
    } finally {
      setTimeout(() => {
        this.isLoading = false;
        if (this.isWanted) { this.isWanted = false; this.load(); }
      }, PAUSE_MS);
    }
  }

  draw() {
    const keys = inOrder(new Set(this.runs.flatMap((run) => [...run.metrics.keys()])));
    if (keys.length && this.hint) { this.hint.remove(); this.hint = null; }
    for (const key of keys) {
      if (this.charts.has(key)) this.charts.get(key).update();
      else this.charts.set(key, new Chart(this, key));
    }
    for (const key of keys) this.grid.append(this.charts.get(key).figure);
  }

  async start() {
    await this.load();
    if (this.root.dataset.stream) {
      const load = () => this.load();
      follow(() => this.root.dataset.stream, { metric: load, run: load, job: load, end: load }, (isOpen) => {
        if (!this.light) return;
        this.light.hidden = false;
        this.light.classList.toggle("on", isOpen);
        this.light.textContent = isOpen ? "live" : "not live";
      });
      setInterval(() => { if (!document.hidden) this.load(); }, POLL_MS);
    }
    let width = this.grid.clientWidth;
    new ResizeObserver(() => {
      if (this.grid.clientWidth === width) return;
      width = this.grid.clientWidth;
      for (const chart of this.charts.values()) chart.uplot.setSize({ width: Math.max(chart.plot.clientWidth, 120), height: 172 });
    }).observe(this.grid);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const chart of this.charts.values()) chart.make();
    });
  }
}

for (const root of document.querySelectorAll("[data-curves]")) new Board(root).start();
