import type { JobJson, JobsOptions } from 'bullmq';
import { Unsupported } from './errors.js';

/** BullMQ's 0, which is before all others, is our normal priority; its 1 is the next level. */
const NORMAL = 100;
const PRIORITY_MAX = 155;
const ATTEMPTS_MAX = 9_999;
const DAY_MS = 24 * 3_600_000;
const META_BYTES_MAX = 4_096;
/**
 * A job that stalls once is begun again, the second time it has failed: BullMQ's `maxStalledCount` of 1. Here a lost lease uses
 * an attempt, there it does not.
 */
const STALLS = 1;

/** What a job may ask for. Whatever BullMQ gets besides is refused, never passed over. */
const JOB_OPTIONS = new Set([
  'attempts', 'backoff', 'deduplication', 'delay', 'jobId', 'keepLogs', 'priority', 'removeOnComplete', 'removeOnFail', 'sizeLimit',
  'stackTraceLimit', 'telemetry', 'timestamp',
]);

/** What can be done instead. */
const INSTEAD: Record<string, string> = {
  lifo: 'jobs of a priority run in the order in which they came; use priority',
  parent: 'flows are not translated yet',
  failParentOnFailure: 'flows are not translated yet',
  continueParentOnFailure: 'flows are not translated yet',
  ignoreDependencyOnFailure: 'flows are not translated yet',
  removeDependencyOnFailure: 'flows are not translated yet',
  repeat: 'use a schedule of the server: docs/schedules.md',
  repeatJobKey: 'use a schedule of the server: docs/schedules.md',
  prevMillis: 'use a schedule of the server: docs/schedules.md',
};

/** Of a worker; the others of BullMQ's own worker are its own affair. */
const WORKER_INSTEAD: Record<string, string> = {
  limiter: 'set a limit of the queue: docs/flow.md',
  metrics: 'the server has metrics: GET /metrics',
};

/** A queue's name under a prefix: BullMQ's own prefix is none. */
export function queueName(name: string, prefix = 'bull'): string {
  return prefix === 'bull' || prefix === '' ? name : `${prefix}.${name}`;
}

/** Refuses what a worker cannot have. */
export function checkWorker(opts: Record<string, unknown>): void {
  for (const [name, instead] of Object.entries(WORKER_INSTEAD)) {
    if (opts[name]) throw new Unsupported(`the worker option ${name}`, instead);
  }
  const stalled = (opts['maxStalledCount'] as number | undefined) ?? STALLS;
  // BullMQ itself says what is wrong with a negative one.
  if (stalled >= 0 && stalled !== STALLS) {
    throw new Unsupported(`the worker option maxStalledCount: ${stalled}`, 'a job fails when it has stalled twice');
  }
}

/** A job to be pushed, as JSON text; the data goes as it is. */
export function newJob(queue: string, job: JobJson, jobId?: string): string {
  const opts: JobsOptions = job.opts ?? {};
  check(opts as Record<string, unknown>, job);
  const kept = JSON.stringify({ opts, timestamp: job.timestamp });
  if (Buffer.byteLength(kept) > META_BYTES_MAX) {
    throw new Unsupported('job options of more than 4 KiB', 'put what is large into the data');
  }
  const rest = {
    queue,
    id: jobId || job.id || undefined,
    attempts: (opts.attempts || 1) + STALLS,
    max_crashes: STALLS + 1,
    timeout_ms: DAY_MS,
    delay_ms: opts.delay || undefined,
    priority: opts.priority ? NORMAL + opts.priority : undefined,
    unique: unique(opts.deduplication),
    meta: { name: job.name, bullmq: kept },
  };
  return `${JSON.stringify(rest).slice(0, -1)},"body":${job.data || '{}'}}`;
}

function check(opts: Record<string, unknown>, job: JobJson): void {
  for (const [name, value] of Object.entries(opts)) {
    if (JOB_OPTIONS.has(name) || value === undefined || value === null || value === false) continue;
    throw new Unsupported(`the job option ${name}`, INSTEAD[name] ?? 'this version does not know it');
  }
  if (job.parentKey || job.parent) throw new Unsupported('the job option parent', INSTEAD['parent']!);
  const priority = opts['priority'] as number | undefined;
  if (priority !== undefined && priority > PRIORITY_MAX) {
    throw new Unsupported(`the job option priority: ${priority}`, `it is at most ${PRIORITY_MAX}`);
  }
  const attempts = opts['attempts'] as number | undefined;
  if (attempts !== undefined && attempts > ATTEMPTS_MAX) {
    throw new Unsupported(`the job option attempts: ${attempts}`, `it is at most ${ATTEMPTS_MAX}`);
  }
}

/** BullMQ's simple mode holds until the job ends, its throttle mode for a time, whatever becomes of the job. */
function unique(deduplication: JobsOptions['deduplication']): object | undefined {
  if (!deduplication) return undefined;
  const { id, ttl, ...others } = deduplication;
  for (const [name, value] of Object.entries(others)) {
    if (value) throw new Unsupported(`the job option deduplication.${name}`, 'the server debounces and keeps the last: docs/uniqueness.md');
  }
  return ttl ? { key: id, ttl_ms: ttl, on_conflict: 'throttle' } : { key: id };
}

/** BullMQ's priority of a job of ours. */
export function priorityOf(priority: number): number {
  return Math.max(0, priority - NORMAL);
}

/** How many finished jobs stay, and how long; `undefined` for all, which is what the queue has set. */
export interface Keep {
  /** Nothing stays. */
  none: boolean;
  /** In the queue's own terms. */
  retention: { age_ms: number; count: number };
}

/** BullMQ's `removeOnComplete` and `removeOnFail`. */
export function keep(option: unknown): Keep | undefined {
  if (option === undefined || option === null || option === false) return undefined;
  if (option === true) return { none: true, retention: { age_ms: 0, count: 0 } };
  const { age, count } = (typeof option === 'number' ? { count: option } : option) as { age?: number; count?: number };
  if (age === undefined && count === undefined) return undefined;
  return {
    none: count === 0,
    retention: { age_ms: age === undefined ? AGE_MS_MAX : age * 1_000, count: count ?? COUNT_MAX },
  };
}

const AGE_MS_MAX = 100 * 366 * DAY_MS;
const COUNT_MAX = 10_000_000;
