import type { JobJson, JobsOptions } from 'bullmq';
import { priorityOf } from './options.js';

/** A job as `GET …/jobs/{id}` has it. */
export interface JobView {
  id: string;
  state: State;
  priority: number;
  attempt: number;
  crashes: number;
  created_at: string;
  due_at: string | null;
  started_at: string | null;
  finished_at: string | null;
  worker: string | null;
  lease_token: number;
  progress: unknown;
  error: { kind: string; message: string; stack: string } | null;
  meta: Record<string, string>;
  body?: unknown;
  result?: unknown;
}

/** A job as a fetch hands it out. */
export interface FetchedJob {
  id: string;
  body: unknown;
  attempt: number;
  crashes: number;
  lease_token: number;
  priority: number;
  created_at: string;
  meta: Record<string, string>;
}

export type State =
  | 'waiting' | 'delayed' | 'blocked' | 'active' | 'retrying' | 'completed' | 'dead' | 'cancelled' | 'expired'
  | 'waiting-children' | 'suspended';

/** Our states by BullMQ's names. */
export const STATES = {
  active: ['active'],
  completed: ['completed'],
  failed: ['dead', 'cancelled', 'expired'],
  delayed: ['delayed', 'retrying', 'suspended'],
  wait: ['waiting', 'blocked'],
  'waiting-children': ['waiting-children'],
} as const satisfies Record<string, readonly State[]>;

/** BullMQ's state of a job of ours. */
export function stateOf(view: Pick<JobView, 'state' | 'priority'>): 'waiting' | 'prioritized' | Exclude<keyof typeof STATES, 'wait'> {
  for (const [name, states] of Object.entries(STATES)) {
    if (name !== 'wait' && (states as readonly State[]).includes(view.state)) return name as 'active';
  }
  return priorityOf(view.priority) > 0 ? 'prioritized' : 'waiting';
}

function millis(time: string | null | undefined): number | undefined {
  return time ? Date.parse(time) : undefined;
}

/** What the adapter kept with the job; a job that somebody else pushed has nothing. */
function kept(meta: Record<string, string>): { opts: JobsOptions; timestamp?: number } {
  return meta['bullmq'] ? JSON.parse(meta['bullmq']) : { opts: {} };
}

/** A job that was just handed out. */
export function fetched(job: FetchedJob, worker: string): JobJson {
  const { opts, timestamp } = kept(job.meta);
  return {
    id: job.id,
    name: job.meta['name'] ?? '',
    data: JSON.stringify(job.body),
    opts,
    progress: 0,
    attemptsMade: job.attempt - job.crashes - 1,
    attemptsStarted: job.attempt,
    processedOn: Date.now(),
    timestamp: timestamp ?? Date.parse(job.created_at),
    delay: 0,
    priority: priorityOf(job.priority),
    stalledCounter: job.crashes,
    deduplicationId: opts.deduplication?.id,
    processedBy: worker,
  } as JobJson;
}

/** A job that is looked at; `stacks` of its attempts, the oldest first. */
export function viewed(view: JobView, stacks: string[]): JobJson {
  const { opts, timestamp } = kept(view.meta);
  const delayed = view.state === 'delayed' || view.state === 'retrying';
  const json: Partial<JobJson> = {
    id: view.id,
    name: view.meta['name'] ?? '',
    data: JSON.stringify(view.body),
    opts,
    progress: (view.progress as JobJson['progress']) ?? 0,
    attemptsMade: view.attempt - view.crashes - (view.state === 'active' ? 1 : 0),
    attemptsStarted: view.attempt,
    timestamp: timestamp ?? Date.parse(view.created_at),
    delay: delayed ? (opts.delay ?? 0) : 0,
    priority: priorityOf(view.priority),
    stalledCounter: view.crashes,
    deduplicationId: opts.deduplication?.id,
    stacktrace: JSON.stringify(stacks),
    finishedOn: millis(view.finished_at),
    processedOn: millis(view.started_at),
  };
  if (view.error) json.failedReason = view.error.message;
  if (view.state === 'completed') json.returnvalue = JSON.stringify(view.result ?? null);
  if (view.worker) json.processedBy = view.worker;
  return json as JobJson;
}
