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
 * @property {any} [children]      the join that the job waited for, if it did: {id, name, state, total, members: [{name, state, queue, id, result, error, join}]}
 * @property {AbortSignal} signal aborted when the attempt is called off; the process is killed soon after
 * @property {(value: any) => void} progress
 * @property {(...values: any[]) => void} log  lines for the job's own log
 * @property {(name: string, run: () => any) => Promise<any>} step  done once in the job's life: later attempts get the stored result
 * @property {(name: string, ms: number) => Promise<void>} sleep  without a process; the handler starts again from its top
 * @property {(name: string, options?: { timeoutMs?: number }) => Promise<any>} waitForSignal  its body; undefined if it did not come
 * @property {(name: string, job: { queue: string, id?: string, body?: any }) => Promise<any>} child  its result, once it has ended
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

/**
 * Throw it when what the handler needs says "too many": nothing of the queue starts for `afterMs`, or, with the name of one of the job's
 * limits, nothing that counts against that limit. No attempt is used.
 */
export class RateLimited extends Error {
  constructor(afterMs, { limit } = {}) {
    super(`rate limited for ${afterMs} ms`);
    Object.assign(this, { name: "RateLimited", type: "rate_limited", afterMs, limit });
  }
}

/**
 * Throw it to add jobs and wait for them without a process: `{jobs: {name: {queue, id?, body?}}, join?: {policy, k, members, on_failure, rest, ignore}}`.
 * When their join has ended the job starts again, with what came of them in `job.children`. No attempt is used.
 */
export class Wait extends Error {
  constructor(children) {
    super("waits for children");
    Object.assign(this, { name: "Wait", type: "wait", children });
  }
}

/** Thrown by sleep, waitForSignal and child: let it pass. The job starts again when what it waits for has come. */
export class Suspended extends Error {
  constructor(frame) {
    super(`suspended in step ${frame.name}`);
    Object.assign(this, { name: "Suspended", frame });
  }
}

/** Thrown by child if that job did not complete. */
export class ChildFailed extends Error {
  constructor(step) {
    super(`child ${step.id} ended ${step.state}${step.error ? `: ${step.error}` : ""}`);
    this.name = "ChildFailed";
  }
}

/** The durable steps of one attempt. `store` tells the worker of a result and comes back with the one that counts. */
const durable = (frame, store) => {
  const stored = new Map(Object.entries(frame.steps ?? {}));
  const used = new Map();
  const steps = { suspended: undefined };
  const named = (name) => {
    const times = (used.get(name) ?? 0) + 1;
    used.set(name, times);
    return times === 1 ? name : `${name}#${times}`;
  };
  const suspend = (end) => {
    steps.suspended ??= end;
    throw new Suspended(end);
  };
  steps.api = {
    async step(name, run) {
      name = named(name);
      if (!stored.has(name)) stored.set(name, await store(name, (await run()) ?? null));
      return stored.get(name).value;
    },
    async sleep(name, ms) {
      name = named(name);
      if (!stored.has(name)) suspend({ type: "sleep", name, after_ms: ms });
    },
    async waitForSignal(signal, { timeoutMs = 0 } = {}) {
      const name = named(signal);
      const step = stored.get(name) ?? suspend({ type: "wait_for_signal", name, signal, timeout_ms: timeoutMs });
      return step.kind === "timeout" ? undefined : step.value;
    },
    async child(name, child) {
      name = named(name);
      const step = stored.get(name);
      if (!step?.state) suspend({ type: "wait_for_child", name, child });
      if (step.state !== "completed") throw new ChildFailed(step);
      return step.value;
    },
  };
  return steps;
};

const outcome = (error) => {
  if (!(error instanceof Error)) error = new Error(inspect(error));
  if (error.type === "snooze") return { type: "snooze", after_ms: error.afterMs };
  if (error.type === "rate_limited") return { type: "rate_limited", after_ms: error.afterMs, limit: error.limit };
  if (error.type === "wait") return { type: "wait", children: error.children };
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
  const lines = createInterface({ input: process.stdin, crlfDelay: Infinity })[Symbol.asyncIterator]();
  for (let next = await lines.next(); !next.done; next = await lines.next()) {
    const frame = JSON.parse(next.value);
    const lease_token = frame.lease_token;
    // One answer is awaited at a time: while a handler runs, the worker writes nothing but answers to its steps.
    let asking = Promise.resolve();
    const store = (name, result) => {
      const answer = asking.then(async () => {
        send({ type: "step", lease_token, name, result });
        const { done, value } = await lines.next();
        if (done) throw new Error("the worker went away");
        const told = JSON.parse(value);
        if (told.error) throw new Error(`step ${name} is not stored: ${told.error}`);
        return told;
      });
      asking = answer.catch(() => {});
      return answer;
    };
    const steps = durable(frame, store);
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
      children: frame.children,
      signal: abort.signal,
      ...steps.api,
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
    send({ ...(steps.suspended ?? end), lease_token });
    if (abort.signal.aborted) break;
  }
  process.exitCode = 0;
  process.stdin.destroy();
}
