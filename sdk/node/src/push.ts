// Jobs to be pushed, with the names of this language.

import { instant, millis, whole, type Span } from './span.js';
import type { WireBackoff, WireJob, WireOutcome } from './wire.js';

const PRIORITIES = { critical: 0, high: 50, normal: 100, low: 150, background: 200 } as const;

/** 0 to 255 or a name; lower starts first. */
export type Priority = number | keyof typeof PRIORITIES;

/** How long to wait between attempts. */
export type Backoff =
  | 'exponential'
  | 'sidekiq'
  | { fixed: Span }
  | { base: Span; cap: Span }
  | { list: Span[] };

export interface Unique {
  key: string;
  /** For how long after its push a job holds the key, even if it has ended. */
  ttl?: Span;
  /** Default `return`: the push answers with the job that is there. */
  onConflict?: 'return' | 'reject' | 'replace' | 'debounce' | 'throttle' | 'keep_last_if_active';
  /** The longest that `debounce` puts a job off. */
  maxWait?: Span;
}

/** What a job can ask for; what is left out is the queue's to say. */
export interface JobOptions {
  /** 1 to 255 bytes. Generated if left out; one that is there already answers with that job. */
  id?: string;
  priority?: Priority;
  delay?: Span;
  runAt?: Date | number;
  attempts?: number;
  maxCrashes?: number;
  backoff?: Backoff;
  /** How long one attempt may take. */
  timeout?: Span;
  /** It expires if it has not started by then. */
  expires?: Span;
  unique?: string | Unique;
  tags?: string[];
  meta?: Record<string, string>;
  /** Its fairness group. */
  group?: string;
  /** Jobs of one key run one after the other. */
  orderingKey?: string;
  limits?: (string | { key: string; cost: number })[];
  deadline?: Date | number;
  /** Of a body that is bytes. Default `application/octet-stream`. */
  contentType?: string;
}

/** A job to be pushed, for calls that take jobs of several queues. */
export interface NewJob<T = unknown> extends JobOptions {
  queue: string;
  /** Any value that JSON can hold, or bytes. */
  body?: T;
}

/** Jobs that wait for jobs, as in docs/joins.md. */
export interface Graph {
  jobs: Record<string, NewJob>;
  /** What is waited for: all jobs, if it names no members. */
  join?: Join;
  /** Several; the last one is waited for. */
  joins?: Record<string, Join>;
}

export interface Join {
  policy?: 'all' | 'all_settled' | 'any' | 'race' | { k: number };
  members?: string[];
  then?: string;
  onFailure?: 'fail' | 'cancel' | 'run';
  rest?: 'cancel' | 'run';
  ignore?: ('failed' | 'cancelled' | 'expired' | 'removed')[];
}

/** The name of a queue, checked: the server closes the stream on one that cannot be. */
export function queueName(name: string): string {
  if (!/^[\w.:-]{1,128}$/.test(name)) throw new TypeError(`${name} is no name of a queue: letters, digits and . _ - :, at most 128`);
  return name;
}

export function toWire(job: NewJob): WireJob {
  const { queue, body, ...options } = job;
  const bytes = body instanceof Uint8Array;
  const wire: WireJob = { queue: queueName(queue), body: bytes ? body : JSON.stringify(body ?? null) };
  if (wire.body === undefined) throw new TypeError('a body must be a value that JSON can hold, or bytes');
  if (bytes) wire.content_type = 'application/octet-stream';
  for (const name in options) put(wire, name as keyof JobOptions, options);
  return wire;
}

/** One option. A loop over what is there is cheaper than asking for all that could be. */
function put(wire: WireJob, name: keyof JobOptions, options: JobOptions): void {
  if (options[name] === undefined) return;
  switch (name) {
    case 'id': wire.id = options.id; break;
    case 'priority': wire.priority = priority(options.priority!); break;
    case 'delay': wire.delay_ms = millis(options.delay!); break;
    case 'runAt': wire.run_at = instant(options.runAt!); break;
    case 'attempts': wire.attempts = whole(name, options.attempts!); break;
    case 'maxCrashes': wire.max_crashes = whole(name, options.maxCrashes!); break;
    case 'backoff': wire.backoff = backoff(options.backoff!); break;
    case 'timeout': wire.timeout_ms = millis(options.timeout!); break;
    case 'expires': wire.expires_ms = millis(options.expires!); break;
    case 'unique': wire.unique = unique(options.unique!); break;
    case 'tags': wire.tags = options.tags; break;
    case 'meta': wire.meta = Object.entries(options.meta!); break;
    case 'group': wire.group = options.group; break;
    case 'orderingKey': wire.ordering_key = options.orderingKey; break;
    case 'limits': wire.limits = options.limits!.map((use) => (typeof use === 'string' ? { key: use, cost: 1 } : use)); break;
    case 'deadline': wire.deadline = instant(options.deadline!); break;
    case 'contentType': wire.content_type = options.contentType; break;
    default: throw new TypeError(`${String(name satisfies never)} is no option of a job`);
  }
}

function priority(priority: Priority): number {
  const number = typeof priority === 'string' ? PRIORITIES[priority] : priority;
  if (!(whole('a priority', number) <= 255)) throw new TypeError('a priority is at most 255');
  return number;
}

function backoff(backoff: Backoff): WireBackoff {
  if (backoff === 'sidekiq') return { type: 'sidekiq' };
  if (backoff === 'exponential') return { type: 'exponential', base_ms: 1_000, cap_ms: 3_600_000 };
  if ('fixed' in backoff) return { type: 'fixed', delay_ms: millis(backoff.fixed) };
  if ('list' in backoff) return { type: 'list', delays_ms: backoff.list.map(millis) };
  return { type: 'exponential', base_ms: millis(backoff.base), cap_ms: millis(backoff.cap) };
}

function unique(unique: string | Unique): WireJob['unique'] {
  if (typeof unique === 'string') return { key: unique };
  const { key, ttl = 0, onConflict, maxWait = 0 } = unique;
  return { key, ttl_ms: millis(ttl), on_conflict: onConflict, max_wait_ms: millis(maxWait) };
}

export function graphToWire({ jobs, join, joins = join ? { join } : {} }: Graph): WireOutcome['children'] {
  const names = Object.keys(jobs);
  const all = Object.keys(joins).length > 0 ? joins : { join: {} };
  return {
    jobs: names.map((name) => ({ name, job: toWire(jobs[name]!) })),
    joins: Object.entries(all).map(([name, { policy = 'all', members, then, onFailure = 'fail', rest = 'cancel', ignore }]: [string, Join]) => ({
      name,
      members: members ?? names.filter((one) => one !== then),
      policy: typeof policy === 'object' ? ['k_of_n', whole('k', policy.k)] : policy,
      then,
      on_failure: onFailure,
      rest,
      ignore,
    })),
  };
}
