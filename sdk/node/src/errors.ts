/** What goes wrong. `code` is stable; the message is for people. */
export class MillpondError extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
    this.name = new.target.name;
  }
}

/** The server refused it, and nothing was changed: the codes are those of docs/errors.md. */
export class Refused extends MillpondError {
  constructor(
    code: string,
    message: string,
    /** When a repetition makes sense. */
    readonly retryAfterMs?: number,
    /** The status, if it was a call over HTTP. */
    readonly status?: number,
  ) {
    super(code, message);
  }
}

/** No server for as long as calls wait (`patience`). It has not seen the call: nothing was changed. */
export class Away extends MillpondError {
  constructor(why: string) {
    super('away', `the server is away, and nothing was changed: ${why}`);
  }
}

/** The server went away with the call. It may or may not have been carried out; with an idempotency key it can be repeated. */
export class Unknown extends MillpondError {
  constructor(why: string) {
    super('unknown_outcome', `it is not known whether the call was carried out: ${why}`);
  }
}

/** The pond was closed by this side. */
export class Closed extends MillpondError {
  constructor(why = 'the pond is closed') {
    super('closed', why);
  }
}

/** The job ended otherwise than completed. */
export class JobFailed extends MillpondError {
  constructor(readonly id: string, readonly state: string) {
    super('job_failed', `job ${id} ended ${state}`);
  }
}
