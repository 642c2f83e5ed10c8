// The messages of the stream, by the names of docs/stream.md. What is empty may be left out.

export interface Lease {
  queue: string;
  id: string;
  lease_token: number;
}

export type Bytes = Uint8Array;
export type Durability = 'memory' | 'os' | 'disk';

/** A job that has come, still as the wire has it. */
export interface LeasedJob extends Lease {
  body: Bytes;
  content_type?: string;
  attempt: number;
  attempts: number;
  crashes?: number;
  lease_until: number;
  timeout_at: number;
  /** 100 if it is left out. */
  priority?: number;
  created_at: number;
  tags?: string[];
  meta?: [string, string][];
  children?: WireJoin;
  /** How many steps earlier attempts stored. */
  steps?: number;
  group?: string;
}

export interface WireJoin {
  id: string;
  name?: string;
  state?: string;
  counts?: number[];
  members?: WireMember[];
}

export interface WireMember {
  name: string;
  state: string;
  queue?: string;
  id?: string;
  join?: WireJoin;
  result?: Bytes;
  result_bytes?: number;
  error?: string;
}

export interface WireBackoff {
  type: 'exponential' | 'fixed' | 'sidekiq' | 'list';
  base_ms?: number;
  cap_ms?: number;
  delay_ms?: number;
  delays_ms?: number[];
}

/** A job to be pushed. */
export interface WireJob {
  queue: string;
  body: Bytes | string;
  id?: string;
  content_type?: string;
  priority?: number;
  delay_ms?: number;
  run_at?: number;
  attempts?: number;
  max_crashes?: number;
  backoff?: WireBackoff;
  timeout_ms?: number;
  expires_ms?: number;
  unique?: { key: string; ttl_ms?: number; on_conflict?: string; max_wait_ms?: number };
  tags?: string[];
  meta?: [string, string][];
  group?: string;
  ordering_key?: string;
  limits?: { key: string; cost: number }[];
  deadline?: number;
}

export interface WireError {
  kind?: string;
  message?: string;
  stack?: string;
}

/** How an attempt ended, without the lease. */
export interface WireOutcome {
  outcome:
    | 'done' | 'retry' | 'fail' | 'snooze' | 'rate_limited' | 'cancel' | 'crash' | 'wait' | 'sleep'
    | 'wait_for_signal' | 'wait_for_child';
  result?: Bytes | string;
  error?: WireError;
  after_ms?: number;
  limit?: string;
  reason?: string;
  crash?: { signal?: number; exit?: number; stderr?: string };
  children?: { jobs: { name: string; job: WireJob }[]; joins: object[] };
  step?: string;
  signal?: string;
  timeout_ms?: number;
  child?: WireJob;
  /** Jobs that are added in the same change. */
  push?: WireJob[];
}

/** What became of a job: its state, or why nothing was changed. */
export interface Settled {
  state?: string;
  pushed?: WirePushed[];
  code?: string;
  detail?: string;
  retry_after_ms?: number;
}

export interface WirePushed {
  id: string;
  state: string;
  deduplicated?: boolean;
  forgotten?: boolean;
}

export interface Pushed {
  position: number;
  durability: Durability;
  jobs: WirePushed[];
}

export type LostReason = 'cancelled' | 'timeout' | 'lease_lost';

/** A lease that is gone. */
export interface Lost extends Lease {
  reason: LostReason;
}

// --- between the caller's thread and the link's ---

/** How to connect. */
export interface LinkOptions {
  url: string;
  token?: string;
  ca?: string | Buffer;
  worker: string;
  heartbeatMs: number;
  patienceMs: number;
  maxBlockedMs: number;
  /** Counts up while the caller's thread turns. */
  beat: Int32Array;
}

/** A request: its number, its name, where its fields lie in `bytes`, whether twice is as good as once, whether it waits for ever. */
export type Ask = [number: number, name: string, start: number, end: number, repeat: boolean, patient: boolean];

export interface FeedOptions {
  feed: number;
  queues: string[];
  lease_ms: number;
  worker?: string;
  durability?: Durability;
  credit: number;
  renew: boolean;
}

/** What the caller's thread tells the link's, in this order. */
export interface ToLink {
  feeds?: FeedOptions[];
  bytes?: Uint8Array;
  asks?: Ask[];
  /** Jobs that need no renewal any more: the frame they came in, their place in it, and so on. */
  released?: Float64Array;
  /** A feed, and how many more jobs may come, and so on. */
  grants?: number[];
  leave?: number[];
  withdraw?: number[];
  close?: boolean;
}

/** What each message of a frame is for: answers of requests, jobs of feeds, nothing. */
export const enum Route { None, Answer, Jobs }

/** What the link's thread tells the caller's. */
export type FromLink =
  /** A message of the WebSocket; for each message in it a route, a number (of the request or feed), and the frame's. */
  | { frame: Uint8Array; routes: number[]; at: number }
  | { failed: [number: number, kind: 'away' | 'unknown' | 'refused' | 'closed', why: string][] }
  | { lost: Lost[] }
  | { left: number }
  | { ended: number; code: string; detail: string }
  | { up: { session: string; resumed: boolean; messageBytesMax: number } }
  | { down: string }
  | { rejected: { code: string; detail: string } };
