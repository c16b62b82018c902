// Lines over time, with a mark for each change of the configuration.

import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Revision } from "./types";

const HEIGHT = 150;

/** Moves when the colours do. */
export const theme = signal(0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme.value++);

/** What a custom property of the style sheet is now, as `rgb(…)`: a canvas knows neither it nor `light-dark()`. */
export function colour(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const now = getComputedStyle(probe).color;
  probe.remove();
  return now;
}

/** The same, seen through. */
export const thin = (rgb: string, part: number) => rgb.replace("rgb(", "rgba(").replace(")", `, ${part})`);

export interface Line {
  label: string;
  /** A custom property of the style sheet. */
  colour: string;
  values: (number | null)[];
  fill?: boolean;
}

interface Props {
  title: string;
  /** What it shows now, in words: for those who do not see the lines. */
  says: string;
  /** Seconds since 1970. */
  times: number[];
  lines: Line[];
  shown: (value: number) => string;
  marks: Revision[];
}

export function Chart({ title, says, times, lines, shown, marks }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const drawn = useRef<Revision[]>(marks);
  drawn.current = marks;
  const colours = theme.value;

  useEffect(() => {
    const at = box.current!;
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false } };
    const made = new uPlot(
      {
        width: at.clientWidth,
        height: HEIGHT,
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.1, 1e-6)] } },
        axes: [
          { ...axis, space: 70, values: (_, ticks) => ticks.map((it) => new Date(it * 1_000).toLocaleTimeString("en-GB")) },
          { ...axis, size: 64, values: (_, ticks) => ticks.map(shown) },
        ],
        series: [
          { label: "time", value: (_, it) => (it ? new Date(it * 1_000).toLocaleTimeString("en-GB") : "–") },
          ...lines.map((line) => ({
            label: line.label,
            stroke: colour(line.colour),
            width: 1.5,
            fill: line.fill ? thin(colour(line.colour), 0.13) : undefined,
            // A moment without requests has no latency: the line goes on to the next that has.
            spanGaps: true,
            points: { show: false },
            value: (_: uPlot, it: number | null) => (it === null || it === undefined ? "–" : shown(it)),
          })),
        ],
        hooks: { draw: [(it) => draw(it, drawn.current)] },
      },
      data(times, lines),
      at,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: at.clientWidth, height: HEIGHT }));
    watch.observe(at);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [colours, lines.length]);

  useEffect(() => plot.current?.setData(data(times, lines)), [times, lines, marks]);

  return (
    <figure class="chart">
      <figcaption>
        {title} <span class="quiet">{says}</span>
      </figcaption>
      <div ref={box} role="img" aria-label={`${title}: ${says}`} />
    </figure>
  );
}

const data = (times: number[], lines: Line[]): uPlot.AlignedData => [times, ...lines.map((it) => it.values)];

function draw(plot: uPlot, marks: Revision[]) {
  const { ctx, bbox } = plot;
  const [from, to] = [plot.scales.x?.min ?? 0, plot.scales.x?.max ?? 0];
  ctx.save();
  ctx.strokeStyle = colour("--mark");
  ctx.setLineDash([4, 4]);
  ctx.lineWidth = devicePixelRatio;
  for (const mark of marks) {
    const at = mark.time ? Date.parse(mark.time) / 1_000 : 0;
    if (at < from || at > to) continue;
    const x = Math.round(plot.valToPos(at, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}
