import { useMemo } from "preact/hooks";
import { ago, count, micros, percent, quantile, rate, success } from "../format";
import { Pending, Unanswered } from "../parts";
import { link, now, place, useLoaded } from "../state";
import { Table, type Column } from "../table";
import type { RouteLine, Traffic, Words } from "../types";
import { RoutePage } from "./route";

/** A line for a route sums up the last five minutes. */
const SUMMED_S = 300;
const EVERY_MS = 5_000;

interface Row {
  name: string;
  matches: string;
  to: string;
  owner: string;
  line: RouteLine | null;
  p99: number | null;
}

export function RoutesPage() {
  const name = place.value.parts[1];
  return name === undefined ? <All /> : <RoutePage key={name} name={name} />;
}

/** What a route takes, in a few words. */
export function matches(route: Words): string {
  const match = (route.match ?? {}) as Record<string, any>;
  const path = match.path_prefix ? `${match.path_prefix}*` : (match.path ?? match.path_exact ?? match.path_template ?? match.path_regex ?? "");
  const hosts = Array.isArray(match.hosts) ? match.hosts.join(", ") : (match.hosts ?? "");
  const methods = Array.isArray(match.methods) ? match.methods.join(",") : "";
  return [methods, hosts, path].filter(Boolean).join(" ") || "everything";
}

export function leadsTo(route: Words): string {
  if (typeof route.upstream === "string") return route.upstream;
  if (Array.isArray(route.split)) return route.split.map((it: any) => it.upstream).join(", ");
  return route.redirect ? "a redirect" : route.respond ? "an answer of the gateway" : "–";
}

function All() {
  const routes = useLoaded<{ routes: Words[] }>("routes?stale=true");
  const traffic = useLoaded<Traffic>("traffic?routes=true", EVERY_MS);
  const rows = useMemo<Row[]>(() => {
    const lines = new Map(traffic.data?.routes.map((it) => [it.route, it]));
    const bounds = traffic.data?.bounds_us ?? [];
    const row = (name: string, matches: string, to: string, owner: string): Row => {
      const line = lines.get(name) ?? null;
      return { name, matches, to, owner, line, p99: line && quantile(line.durations, bounds, 0.99) };
    };
    const all = (routes.data?.routes ?? []).map((it) => row(it.name, matches(it), leadsTo(it), String(it.owner ?? "")));
    // What no route takes is counted too, and is what somebody looks for after a mistake.
    if (lines.get("-")?.requests) all.push(row("-", "what no route takes", "–", ""));
    return all;
  }, [routes.data, traffic.data]);
  if (!routes.data) return <Pending error={routes.error} what="the routes" />;
  return (
    <>
      <h1>Routes</h1>
      <p class="quiet">Traffic of the last five minutes over all nodes.</p>
      <Unanswered names={traffic.data?.unanswered ?? []} />
      <Table caption="Routes" rows={rows} columns={columns()} name={(it) => it.name} text={(it) => `${it.name} ${it.matches} ${it.to} ${it.owner}`} empty="there is no route yet" />
    </>
  );
}

const columns = (): Column<Row>[] => [
  { title: "Route", by: (it) => it.name, cell: (it) => (it.name === "-" ? "(none)" : <a href={link("routes", it.name)}>{it.name}</a>) },
  { title: "Takes", by: (it) => it.matches, cell: (it) => <code>{it.matches}</code> },
  { title: "Upstream", by: (it) => it.to, cell: (it) => it.to },
  { title: "Requests/s", number: true, by: (it) => it.line?.requests ?? 0, cell: (it) => rate((it.line?.requests ?? 0) / SUMMED_S) },
  { title: "Success", number: true, by: (it) => it.line && success(it.line), cell: (it) => percent(it.line && success(it.line)) },
  { title: "4xx", number: true, by: (it) => it.line?.client_errors ?? 0, cell: (it) => count(it.line?.client_errors ?? 0) },
  { title: "p99", number: true, by: (it) => it.p99, cell: (it) => micros(it.p99) },
  { title: "Last hit", number: true, by: (it) => it.line?.last_hit_ms ?? null, cell: (it) => ago(it.line?.last_hit_ms ?? null, now.peek()) },
];
