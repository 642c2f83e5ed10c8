// Runs Node code as a child of a Millpond pool: jobs come in on stdin, outcomes go out on stdout, one JSON line each.
// The protocol is described in docs/handlers.md.

import { createInterface } from "node:readline";
import { inspect } from "node:util";

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} queue
 * @property {any} body          parsed JSON, or a Buffer if the body is not JSON
 * @property {number} attempt    1 for the first
 * @property {number} attempts
 * @property {number} leaseToken larger than every token before: pass it to whatever must refuse old writers
 * @property {Date} deadline     the attempt is called off then
 * @property {string} contentType
 * @property {string[]} tags
 * @property {Record<string, string>} meta
 * @property {AbortSignal} signal aborted when the attempt is called off; the process is killed soon after
 * @property {(value: any) => void} progress
 * @property {(...values: any[]) => void} log  lines for the job's own log
 */

/** Throw it to try again, after `afterMs` if given. Any other error does the same with the queue's backoff. */
export class Retry extends Error {
  constructor(message, { afterMs, kind = "Retry" } = {}) {
    super(message);
    Object.assign(this, { name: kind, type: "retry", afterMs });
  }
}

/** Throw it when no further attempt can help: the job is dead now. */
export class Fail extends Error {
  constructor(message, { kind = "Fail" } = {}) {
    super(message);
    Object.assign(this, { name: kind, type: "fail" });
  }
}

/** Throw it to be asked again later; no attempt is used. */
export class Snooze extends Error {
  constructor(afterMs) {
    super(`snoozed for ${afterMs} ms`);
    Object.assign(this, { name: "Snooze", type: "snooze", afterMs });
  }
}

const outcome = (error) => {
  if (!(error instanceof Error)) error = new Error(inspect(error));
  if (error.type === "snooze") return { type: "snooze", after_ms: error.afterMs };
  return {
    type: error.type === "fail" ? "fail" : "retry",
    error: { kind: error.name, message: error.message, stack: error.stack ?? "" },
    after_ms: error.afterMs,
  };
};

const readBody = (frame) => ("body" in frame ? frame.body : Buffer.from(frame.body_base64 ?? "", "base64"));

/**
 * Takes jobs until stdin ends. What `handler` returns is the job's result.
 * @param {(job: Job) => any} handler
 */
export async function handle(handler) {
  const write = process.stdout.write.bind(process.stdout);
  const send = (frame) => write(JSON.stringify(frame) + "\n");
  // stdout belongs to the protocol: whatever else is printed goes to stderr.
  process.stdout.write = (...args) => process.stderr.write(...args);
  let abort = new AbortController();
  process.on("SIGTERM", () => abort.abort(new Error("the attempt was called off")));

  send({ type: "hello", protocol: 1, name: `node ${process.version}` });
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const frame = JSON.parse(line);
    const lease_token = frame.lease_token;
    abort = new AbortController();
    const job = {
      id: frame.id,
      queue: frame.queue,
      body: readBody(frame),
      attempt: frame.attempt,
      attempts: frame.attempts,
      leaseToken: lease_token,
      deadline: new Date(frame.deadline_ms),
      contentType: frame.content_type,
      tags: frame.tags,
      meta: frame.meta,
      signal: abort.signal,
      progress: (value) => send({ type: "progress", lease_token, value }),
      log: (...values) => {
        const text = values.map((value) => (typeof value === "string" ? value : inspect(value))).join(" ");
        send({ type: "log", lease_token, lines: text.split("\n") });
      },
    };
    let end;
    try {
      end = { type: "done", result: (await handler(job)) ?? null };
    } catch (error) {
      end = outcome(error);
    }
    send({ ...end, lease_token });
    if (abort.signal.aborted) break;
  }
  process.exitCode = 0;
  process.stdin.destroy();
}
