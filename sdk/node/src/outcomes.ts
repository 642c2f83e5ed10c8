// What a handler throws or returns to say more than "done" and "try again".

import { toWire, type NewJob, type Graph, graphToWire } from './push.js';
import { millis, type Span } from './span.js';
import type { WireError, WireJob, WireOutcome } from './wire.js';

/** The longest texts of an error that are kept. */
const TEXT_MAX = 8_000;

export interface OutcomeOptions {
  /** Jobs that are added in the same change: they exist exactly if the outcome counts. See `Queue.prepare`. */
  push?: NewJob[];
}

/** An outcome other than a plain result or error. All but `Done` are thrown. */
export abstract class Outcome extends Error {
  private readonly follow: NewJob[];

  constructor(message: string, { push = [] }: OutcomeOptions = {}) {
    super(message);
    this.name = new.target.name;
    this.follow = push;
  }

  protected abstract outcome(): WireOutcome;

  /** @internal */
  toWire(): WireOutcome {
    return { ...this.outcome(), push: pushed(this.follow) };
  }
}

const pushed = (jobs: NewJob[]): WireJob[] | undefined => (jobs.length > 0 ? jobs.map(toWire) : undefined);

/** Return it for a result together with jobs to push. */
export class Done<R = unknown> {
  constructor(readonly result?: R, readonly options: OutcomeOptions = {}) {}

  /** @internal */
  toWire(): WireOutcome {
    return { ...done(this.result), push: pushed(this.options.push ?? []) };
  }
}

/** Throw it to try again, after `after` if given. Any other error does the same by the job's backoff. */
export class Retry extends Outcome {
  constructor(message = 'try again', private readonly options: OutcomeOptions & { after?: Span; kind?: string } = {}) {
    super(message, options);
  }

  protected outcome(): WireOutcome {
    const { after, kind } = this.options;
    return { outcome: 'retry', error: told(this, kind), after_ms: after === undefined ? undefined : millis(after) };
  }
}

/** Throw it when no further attempt can help: the job is dead now. */
export class Fail extends Outcome {
  constructor(message = 'failed', private readonly options: OutcomeOptions & { kind?: string } = {}) {
    super(message, options);
  }

  protected outcome(): WireOutcome {
    return { outcome: 'fail', error: told(this, this.options.kind) };
  }
}

/** Throw it to be asked again later; no attempt is used. */
export class Snooze extends Outcome {
  constructor(private readonly after: Span, options?: OutcomeOptions) {
    super(`snoozed for ${after}`, options);
  }

  protected outcome(): WireOutcome {
    return { outcome: 'snooze', after_ms: millis(this.after) };
  }
}

/**
 * Throw it when what the handler needs says "too many": nothing of the queue starts for `after`, or, with the name of one of the job's
 * limits, nothing that counts against that limit. No attempt is used.
 */
export class RateLimited extends Outcome {
  constructor(private readonly after: Span = '1s', private readonly options: OutcomeOptions & { limit?: string } = {}) {
    super(`rate limited for ${after}`, options);
  }

  protected outcome(): WireOutcome {
    return { outcome: 'rate_limited', after_ms: millis(this.after), limit: this.options.limit };
  }
}

/** Throw it to call the job off. */
export class Cancel extends Outcome {
  constructor(private readonly reason = '', options?: OutcomeOptions) {
    super(reason || 'cancelled', options);
  }

  protected outcome(): WireOutcome {
    return { outcome: 'cancel', reason: this.reason };
  }
}

/** Throw it to add jobs and wait for them without holding a worker; the job starts again with what came of them in `job.children`. */
export class Wait extends Outcome {
  constructor(private readonly graph: Graph, options?: OutcomeOptions) {
    super('waits for children', options);
  }

  protected outcome(): WireOutcome {
    return { outcome: 'wait', children: graphToWire(this.graph) };
  }
}

/** Thrown by `sleep`, `waitForSignal` and `child`: let it pass. The job starts again when what it waits for has come. */
export class Suspended extends Error {
  constructor(step: string) {
    super(`the job is suspended in step ${step}; let this error pass`);
    this.name = 'Suspended';
  }
}

/** Thrown by `child` if that job did not complete. */
export class ChildFailed extends Error {
  constructor(readonly id: string, readonly state: string, readonly why?: unknown) {
    super(`child ${id} ended ${state}`);
    this.name = 'ChildFailed';
  }
}

/** The outcome of a handler that returned. Throws for a value that is no JSON: another attempt would give the same. */
export function done(result: unknown): WireOutcome {
  try {
    return { outcome: 'done', result: result === undefined || result === null ? undefined : JSON.stringify(result) };
  } catch (error) {
    throw new Fail(`the result is no JSON: ${(error as Error).message}`, { kind: 'encode' });
  }
}

/** The outcome of a handler that threw, and the error itself: one that cannot be written is a failure like any other. */
export function ended(thrown: unknown): [WireOutcome, unknown] {
  if (!(thrown instanceof Outcome)) return [{ outcome: 'retry', error: told(thrown) }, thrown];
  try {
    return [thrown.toWire(), thrown];
  } catch (error) {
    return [{ outcome: 'retry', error: told(error) }, error];
  }
}

export function told(error: unknown, kind?: string): WireError {
  const cut = (text: unknown) => String(text ?? '').slice(0, TEXT_MAX);
  if (!(error instanceof Error)) return { kind: kind ?? 'error', message: cut(error) };
  return { kind: cut(kind ?? error.name), message: cut(error.message), stack: cut(error.stack) };
}
