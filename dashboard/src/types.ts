// The shapes of /api/v1, as docs/OPERATING.md has them.

export type Role = "viewer" | "operator" | "admin";

export interface Who {
  name: string;
  role: Role;
  owner: string | null;
  node: string;
  version: string;
}

export interface Node {
  name: string;
  id: number;
  region: string;
  role: "voter" | "replica";
  state: "ready" | "draining" | "joining" | "unreachable";
  raft: string | null;
  lag: number | null;
  revision: number;
  version: string | null;
  peer_address: string | null;
  certificate_not_after: string | null;
  applied_index: number | null;
  problems: string[];
}

export interface Cluster {
  cluster: string;
  leader: string | null;
  term: number;
  voters: number;
  failure_tolerance: number;
  revision: number;
  healthy: boolean;
  max_rtt: string | null;
  max_staleness: string | null;
  findings: string[];
}

export interface Overview {
  node: string;
  time: string;
  cluster: Cluster;
  nodes: Node[];
  answered: number;
  round_trips: { from: string; to: string; us: number }[];
  election_timeout_us: number;
  trial: { revision: number; ends_in_ms: number; prior_revision: number } | null;
  written: number;
  keys: number;
  revocations: number;
  propagation: { bounds_us: number[]; counts: number[] };
}

export interface Counted {
  requests: number;
  client_errors: number;
  server_errors: number;
  durations: number[];
}

export interface Frame extends Counted {
  at_ms: number;
  span_ms: number;
  in_flight: number;
}

export interface RouteLine extends Counted {
  route: string;
  last_hit_ms: number | null;
}

export interface Traffic {
  nodes: { node: string; region: string; frames: Frame[] }[];
  unanswered: string[];
  routes: RouteLine[];
  bounds_us: number[];
}

export interface Revision {
  revision: number;
  time: string | null;
  actor: string;
  message: string;
  changes: { created: number; updated: number; deleted: number };
  hash: string | null;
  trial: string | null;
  rollback_of: number | null;
}

export interface Write {
  revision: number;
  noop: boolean;
  changes: { created: number; updated: number; deleted: number; objects: { kind: string; name: string; action: string }[] };
  nodes: { name: string; applied_revision: number; applied_at: string | null; unreachable: boolean }[];
  warnings: string[];
  request_id: string | null;
  trial_until: string | null;
}

export interface Exchange {
  request_id: string;
  trace_id: string | null;
  time: string;
  node: string;
  region: string;
  revision: number;
  route: string | null;
  consumer: string | null;
  credential: string | null;
  auth_method: string | null;
  client_ip: string;
  method: string;
  host: string | null;
  path: string | null;
  protocol: string;
  status: number;
  code: string | null;
  detail: string | null;
  decision: { phase: string | null; policy: string | null; rule: string | null; shadow: string[]; numbers: Record<string, number> };
  received_bytes: number;
  sent_bytes: number;
  timings_us: { gateway: number | null; connect: number | null; ttfb: number | null; total: number | null };
  upstream: { address: string | null; attempts: number };
  when?: string | null;
  help?: string | null;
}

export interface Match {
  status: number | null;
  code: string | null;
  route: string | null;
  upstream: string | null;
  beaten: { route: string; why: string }[];
  phases: { phase: string; decision: string; rule: string | null }[];
  near_misses: { route: string; why: string }[];
}

export interface AuditEntry {
  index: number | null;
  revision: number | null;
  time: string | null;
  actor: string;
  source: string;
  rpc: string;
  message: string;
  summary: string;
  sequence: number;
  result: string;
  node: string | null;
  count: number;
}

export interface Finding {
  check: string;
  node: string | null;
  level: "ok" | "warning" | "critical" | "unknown";
  found: string;
  allowed: string | null;
  fix: string | null;
}

/** An object in the words of a configuration file. */
export type Words = { name: string; [word: string]: unknown };
