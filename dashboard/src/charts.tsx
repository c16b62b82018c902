// Traffic, errors and latency of frames: the three charts that pages share.

import { Chart } from "./chart";
import { plural, rate } from "./format";
import { type Lately, perSecond, quantiles } from "./lately";
import { revisions } from "./state";

const last = (values: (number | null)[]) => values.at(-1) ?? null;
const inMs = (value: number | null) => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);

export function Charts({ lately }: { lately: Lately }) {
  const { frames, bounds } = lately;
  const times = frames.map((it) => it.at_ms / 1_000);
  const requests = frames.map((it) => perSecond(it, it.requests));
  const client = frames.map((it) => perSecond(it, it.client_errors));
  const server = frames.map((it) => perSecond(it, it.server_errors));
  const [p50, p99] = [quantiles(frames, bounds, 0.5), quantiles(frames, bounds, 0.99)];
  const from = frames[0]?.at_ms ?? 0;
  const marks = revisions.value.filter((it) => it.time !== null && Date.parse(it.time) >= from);
  const shared = { times, marks };
  return (
    <section aria-label="Charts">
      <div class="charts">
        <Chart
          {...shared}
          title="Requests per second"
          says={`now ${rate(last(requests) ?? 0)}`}
          lines={[{ label: "requests/s", colour: "--line-1", values: requests, fill: true }]}
          shown={rate}
        />
        <Chart
          {...shared}
          title="Errors per second"
          says={`now ${rate(last(server) ?? 0)} failed, ${rate(last(client) ?? 0)} refused`}
          lines={[
            { label: "5xx/s", colour: "--line-2", values: server },
            { label: "4xx/s", colour: "--line-3", values: client },
          ]}
          shown={rate}
        />
        <Chart
          {...shared}
          title="Latency"
          says={`p50 ${inMs(last(p50))}, p99 ${inMs(last(p99))}`}
          lines={[
            { label: "p50", colour: "--line-1", values: p50 },
            { label: "p99", colour: "--line-4", values: p99 },
          ]}
          shown={inMs}
        />
      </div>
      <p class="quiet">
        Dashed lines are changes of the configuration: {plural(marks.length, "change")} in this time
        {marks[0] && `, the last one revision ${marks[0].revision} by ${marks[0].actor}${marks[0].message && `: ${marks[0].message}`}`}.
      </p>
    </section>
  );
}
