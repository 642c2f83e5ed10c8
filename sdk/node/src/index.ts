export { connect, Pond, Queue, type Filter, type JobView, type PushOptions, type Receipt } from './pond.js';
export { Worker, type Handler, type WorkerOptions } from './worker.js';
export { Job, CalledOff, type Children, type Member } from './job.js';
export {
  Cancel, ChildFailed, Done, Fail, Outcome, RateLimited, Retry, Snooze, Suspended, Wait, type OutcomeOptions,
} from './outcomes.js';
export { Away, Closed, JobFailed, MillpondError, Refused, Unknown } from './errors.js';
export type { Backoff, Graph, JobOptions, Join, NewJob, Priority, Unique } from './push.js';
export type { Span } from './span.js';
export { Http, type CallOptions } from './http.js';
export { Stream, type ConnectOptions, type RequestOptions, type SubscribeOptions, type Subscription } from './stream.js';
export type {
  Durability, Lease, LeasedJob, Lost, LostReason, Pushed, Settled, WireBackoff, WireError, WireJob, WireJoin, WireMember, WireOutcome,
  WirePushed,
} from './wire.js';
