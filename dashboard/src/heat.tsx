// How long requests took, over time: a column a moment, a row a bucket, the darker the more requests.

import { useEffect, useRef, useState } from "preact/hooks";
import { colour, theme, thin } from "./chart";
import { clock, count, micros, quantile } from "./format";
import type { Frame } from "./types";

const ROW_PX = 10;
const COLUMNS_MAX = 240;

interface Column {
  at_ms: number;
  durations: number[];
}

/** Neighbours are put together until they fit. */
function columns(frames: Frame[]): Column[] {
  const each = Math.max(1, Math.ceil(frames.length / COLUMNS_MAX));
  const all: Column[] = [];
  for (let from = 0; from < frames.length; from += each) {
    const part = frames.slice(from, from + each);
    const durations: number[] = [];
    for (const frame of part) frame.durations.forEach((it, slot) => (durations[slot] = (durations[slot] ?? 0) + it));
    all.push({ at_ms: part[0]!.at_ms, durations: Array.from(durations, (it) => it ?? 0) });
  }
  return all;
}

export function Heat({ frames, bounds }: { frames: Frame[]; bounds: number[] }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [told, setTold] = useState("");
  const all = columns(frames);
  const rows = bounds.length + 1;
  const colours = theme.value;
  const most = Math.max(1, ...all.flatMap((it) => it.durations));
  const slowest = all.reduce((max, it) => Math.max(max, it.durations.findLastIndex((n) => n > 0)), -1);
  const says =
    slowest < 0
      ? "no request in this time"
      : `the slowest took ${slowest < bounds.length ? `at most ${micros(bounds[slowest])}` : `more than ${micros(bounds.at(-1))}`}`;

  useEffect(() => {
    const at = canvas.current!;
    at.width = Math.max(all.length, 1);
    at.height = rows;
    const ctx = at.getContext("2d")!;
    const full = colour("--heat");
    ctx.clearRect(0, 0, at.width, at.height);
    all.forEach((column, x) =>
      column.durations.forEach((n, slot) => {
        if (n === 0) return;
        ctx.fillStyle = thin(full, 0.25 + (0.75 * Math.log1p(n)) / Math.log1p(most));
        ctx.fillRect(x, rows - 1 - slot, 1, 1);
      }),
    );
  }, [frames, colours]);

  const tell = (event: MouseEvent) => {
    const area = canvas.current!.getBoundingClientRect();
    const column = all[Math.floor(((event.clientX - area.left) / area.width) * all.length)];
    const slot = rows - 1 - Math.floor(((event.clientY - area.top) / area.height) * rows);
    if (!column) return setTold("");
    const [low, high] = [slot === 0 ? 0 : bounds[slot - 1], bounds[slot]];
    const range = high === undefined ? `over ${micros(low)}` : `${micros(low)} to ${micros(high)}`;
    const p99 = quantile(column.durations, bounds, 0.99);
    setTold(`${clock(column.at_ms)}: ${count(column.durations[slot] ?? 0)} took ${range}; p99 ${micros(p99)}`);
  };

  return (
    <figure class="heat">
      <figcaption>
        How long requests took <span class="quiet">{told || says}</span>
      </figcaption>
      <div class="heat-area">
        <ol class="heat-rows" aria-hidden="true">
          {[...bounds, undefined].map((it, slot) => slot % 4 === 3 && <li key={slot} style={{ bottom: `${(slot + 1) * ROW_PX}px` }}>{micros(it)}</li>)}
        </ol>
        <canvas
          ref={canvas}
          role="img"
          aria-label={`Latency heat map: ${says}`}
          style={{ height: `${rows * ROW_PX}px` }}
          onMouseMove={tell}
          onMouseLeave={() => setTold("")}
        />
      </div>
      <p class="heat-times quiet">
        <span>{all[0] ? clock(all[0].at_ms) : ""}</span>
        <span>{all.at(-1) ? clock(all.at(-1)!.at_ms) : ""}</span>
      </p>
    </figure>
  );
}
