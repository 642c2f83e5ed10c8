/** What the adapter refuses by itself: something of BullMQ that Millpond has no translation for. Nothing was changed. */
export class Unsupported extends Error {
  /** The option or the method, as BullMQ calls it. */
  readonly feature: string;

  constructor(feature: string, instead: string) {
    super(`${feature} is not supported on Millpond: ${instead}`);
    this.name = 'Unsupported';
    this.feature = feature;
  }
}

/** A refusal of the server: nothing was changed. The codes are in docs/errors.md. */
export class Refused extends Error {
  readonly code: string;
  readonly status: number;

  constructor(status: number, code: string, detail: string) {
    super(`${code}: ${detail}`);
    this.name = 'Refused';
    this.code = code;
    this.status = status;
  }
}

/** The server could not be reached. BullMQ knows a lost connection by this code, and tries again. */
export class Away extends Error {
  readonly code = 'ECONNREFUSED';

  constructor(cause: unknown) {
    super(`the server is away (ECONNREFUSED): ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.name = 'Away';
  }
}

/** What BullMQ's callers branch on: its numbers, with the sentences that it has for them. */
export const enum Code {
  JobNotExist = -1,
  JobLockNotExist = -2,
  JobNotInState = -3,
  JobLockMismatch = -6,
}

/** An error as BullMQ's own stores throw it. */
export function finished(code: Code, jobId: string, command: string, state = 'active'): Error {
  const sentence = {
    [Code.JobNotExist]: `Missing key for job ${jobId}. ${command}`,
    [Code.JobLockNotExist]: `Missing lock for job ${jobId}. ${command}`,
    [Code.JobNotInState]: `Job ${jobId} is not in the ${state} state. ${command}`,
    [Code.JobLockMismatch]: `Lock mismatch for job ${jobId}. Cmd ${command} from ${state}`,
  }[code];
  return Object.assign(new Error(sentence), { code });
}
