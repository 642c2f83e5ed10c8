import { inspect } from 'node:util';
import { MillpondError } from './errors.js';
import { ChildFailed, Suspended } from './outcomes.js';
import type { Http } from './http.js';
import { toWire, type NewJob } from './push.js';
import { millis, type Span } from './span.js';
import type { Stream } from './stream.js';
import type { LeasedJob, LostReason, WireJoin, WireOutcome } from './wire.js';

/** Why an attempt is called off: its `code` is the reason. */
export class CalledOff extends MillpondError {
  constructor(readonly reason: LostReason | 'stopping') {
    super(reason, `the attempt was called off: ${reason}`);
  }
}

/** The join that a job waited for, with what came of its members. */
export interface Children {
  id: string;
  state?: string;
  /** How many members there are; the first 1,000 are here. */
  total: number;
  members: Member[];
}

export interface Member {
  name: string;
  state: string;
  queue?: string;
  id?: string;
  result?: unknown;
  /** Of a result that was too large to be handed over. */
  resultBytes?: number;
  error?: string;
  join?: Children;
}

interface Step {
  name: string;
  kind: 'result' | 'sleep' | 'signal' | 'timeout' | 'child';
  value?: unknown;
  child_id?: string;
  ended?: string;
  error?: unknown;
}

/** The attempt that a handler is running. */
export class Job<T = unknown> {
  /** @internal How it ends whatever the handler returns. */
  suspension?: WireOutcome;
  /** @internal */
  calledOff?: CalledOff;
  /** @internal How often its outcome was told. */
  told = 0;
  private read = false;
  private value?: T;
  private controller?: AbortController;
  private stored?: Promise<Map<string, Step>>;
  private used?: Map<string, number>;

  /** @internal */
  constructor(
    /** As it came over the stream. */
    readonly raw: LeasedJob,
    private readonly stream: Stream,
    private readonly http: Http,
    private readonly worker: string | undefined,
  ) {}

  /** The same in every attempt. */
  get id(): string { return this.raw.id; }
  get queue(): string { return this.raw.queue; }
  /** 1 for the first. */
  get attempt(): number { return this.raw.attempt; }
  get attempts(): number { return this.raw.attempts; }
  /** Attempts that ended with the death of their worker. */
  get crashes(): number { return this.raw.crashes ?? 0; }
  /** Larger than every token before: pass it to whatever must refuse old writers. */
  get leaseToken(): number { return this.raw.lease_token; }
  /** The attempt is called off then. */
  get deadline(): Date { return new Date(this.raw.timeout_at); }
  get createdAt(): Date { return new Date(this.raw.created_at); }
  get priority(): number { return this.raw.priority ?? 100; }
  get tags(): string[] { return this.raw.tags ?? []; }
  get meta(): Record<string, string> { return Object.fromEntries(this.raw.meta ?? []); }
  get group(): string | undefined { return this.raw.group; }

  /** What was pushed: the value of its JSON, or bytes if it is something else. */
  get body(): T {
    if (!this.read) {
      const { body, content_type = 'application/json' } = this.raw;
      this.value = (content_type === 'application/json' ? json(body) : body) as T;
      this.read = true;
    }
    return this.value as T;
  }

  /** What came of the jobs that it waited for; undefined if it waited for none yet. */
  get children(): Children | undefined {
    return this.raw.children && children(this.raw.children);
  }

  /** Aborted, with a `CalledOff`, when the attempt is called off: no outcome counts any more. */
  get signal(): AbortSignal {
    this.controller ??= new AbortController();
    if (this.calledOff) this.controller.abort(this.calledOff);
    return this.controller.signal;
  }

  /** @internal */
  callOff(reason: CalledOff['reason']): void {
    this.calledOff ??= new CalledOff(reason);
    this.controller?.abort(this.calledOff);
  }

  /** Stores how far it is: any JSON value of at most 16 KiB. Need not be awaited. */
  progress(value: unknown): Promise<void> {
    const fields = { lease: this.lease, value: JSON.stringify(value ?? null), worker: this.worker };
    return quiet(this.stream.request('progress', fields, { repeat: true }));
  }

  /** Adds lines to the job's own log. Need not be awaited. */
  log(...values: unknown[]): Promise<void> {
    const text = values.map((value) => (typeof value === 'string' ? value : inspect(value))).join(' ');
    return quiet(this.stream.request('log', { lease: this.lease, lines: text.split('\n'), worker: this.worker }));
  }

  /**
   * Done once in the job's life: later attempts get the stored result. If it fails, nothing is stored. A name that is used again in one
   * attempt is called `name#2`.
   */
  async step<R>(name: string, run: () => R | Promise<R>): Promise<R> {
    name = this.named(name);
    const stored = await this.steps();
    if (!stored.has(name)) {
      const value = (await run()) ?? null;
      const fields = { lease: this.lease, name, result: JSON.stringify(value), worker: this.worker };
      const had = await this.stream.request('step', fields, { repeat: true, patient: true, signal: this.signal });
      // Another attempt of this job was first: its result counts.
      if (had) this.stored = undefined;
      if (!had) stored.set(name, { name, kind: 'result', value });
      else return (await this.steps(true)).get(name)!.value as R;
    }
    return stored.get(name)!.value as R;
  }

  /** Sleeps without holding a worker; the handler starts again from its top. */
  async sleep(name: string, span: Span): Promise<void> {
    name = this.named(name);
    if (!(await this.steps()).has(name)) this.suspend({ outcome: 'sleep', step: name, after_ms: millis(span) });
  }

  /** Waits without holding a worker until somebody signals the job; undefined if nobody did within `timeout` (a day). */
  async waitForSignal<S = unknown>(signal: string, { timeout = 0 }: { timeout?: Span } = {}): Promise<S | undefined> {
    const name = this.named(signal);
    const step = (await this.steps()).get(name);
    if (!step) this.suspend({ outcome: 'wait_for_signal', step: name, signal, timeout_ms: millis(timeout) });
    return step.kind === 'timeout' ? undefined : (step.value as S);
  }

  /** Pushes a job, once, and waits without holding a worker until it has ended: its result, or a `ChildFailed`. */
  async child<R = unknown>(name: string, job: NewJob): Promise<R> {
    name = this.named(name);
    const step = (await this.steps()).get(name);
    if (!step?.ended) this.suspend({ outcome: 'wait_for_child', step: name, child: toWire(job) });
    if (step.ended !== 'completed') throw new ChildFailed(step.child_id ?? '', step.ended, step.error);
    return step.value as R;
  }

  private get lease(): object {
    const { queue, id, lease_token } = this.raw;
    return { queue, id, lease_token };
  }

  private named(name: string): string {
    this.used ??= new Map();
    const times = (this.used.get(name) ?? 0) + 1;
    this.used.set(name, times);
    return times === 1 ? name : `${name}#${times}`;
  }

  private suspend(outcome: WireOutcome): never {
    this.suspension ??= outcome;
    throw new Suspended(outcome.step ?? '');
  }

  /** What is stored, read when it is first asked for. */
  private steps(all = (this.raw.steps ?? 0) > 0): Promise<Map<string, Step>> {
    this.stored ??= (async () => {
      if (!all) return new Map();
      const path = `/v1/queues/${this.queue}/jobs/${encodeURIComponent(this.id)}/steps`;
      const { steps } = await this.http.call('GET', path, { signal: this.signal });
      return new Map(steps.map((step: Step) => [step.name, step]));
    })();
    return this.stored;
  }
}

const text = new TextDecoder();
const json = (bytes: Uint8Array): unknown => JSON.parse(text.decode(bytes));

/** Whoever does not wait for it does not want to hear of it. */
function quiet(call: Promise<unknown>): Promise<void> {
  const done = call.then(() => {});
  done.catch(() => {});
  return done;
}

function children({ id, state, counts = [], members = [] }: WireJoin): Children {
  return {
    id,
    state,
    total: counts.reduce((sum, count) => sum + count, 0),
    members: members.map(({ name, state, queue, id, result, result_bytes, error, join }) => ({
      name,
      state,
      queue,
      id,
      result: result && json(result),
      resultBytes: result_bytes,
      error,
      join: join && children(join),
    })),
  };
}
