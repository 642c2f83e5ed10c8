// The connection, in a thread of its own: handlers that block the caller's thread block neither signs of life nor renewals.
//
//   caller's thread ── requests, credit ──► waiting ──► asked ──► WebSocket
//                   ◄── frames as they came, failures, lost leases ──┘

import { Decoder, Encoder } from '@msgpack/msgpack';
import { parentPort, workerData } from 'node:worker_threads';
import WebSocket from 'ws';
import {
  Route,
  type Ask,
  type Bytes,
  type FeedOptions,
  type FromLink,
  type Lease,
  type LeasedJob,
  type LinkOptions,
  type ToLink,
} from './wire.js';

const VERSION: string = require('../package.json').version;
/** Requests that the server keeps for a session, less room for our own. */
const REQUESTS_MAX = 1_000;
/** Messages are gathered up to this size. */
const PIECE_BYTES = 256 << 10;
/** Above this nothing more is written until the socket has taken it. */
const UNSENT_BYTES = 8 << 20;
const MESSAGE_BYTES_MAX = 16 << 20;
/** Answers after which the server is told that they have arrived. */
const ACKNOWLEDGE = 64;
/** Leases in one renewal. */
const RENEW_MAX = 1_000;
/** A connection must be there within this; failures double it up to the second figure, for links that are slow. */
const CONNECT_MS = [1_000, 10_000] as const;
/** Between attempts: a random time below a doubling cap, so that not all clients of a server come back at once. */
const AGAIN_MS = [50, 1_000] as const;
/** At the end, what is written has this long to leave. */
const FAREWELL_MS = 1_000;
const TICKS_PER_HEARTBEAT = 4;

interface Request {
  /** The caller's number; 0 for our own. */
  number: number;
  name: string;
  fields: Bytes;
  repeat: boolean;
  patient: boolean;
  sent: boolean;
  /** Takes the answer of one of our own. */
  answered?: (fields: any) => void;
}

interface Feed extends FeedOptions {
  /** Its number in this connection, and what has come and may come there. */
  sub: number;
  received: number;
  granted: number;
  /** Jobs that may still come, whatever connection brings them. */
  window: number;
}

/** The leases of one message of jobs. */
interface Frame {
  feed: Feed;
  leases: (Lease | undefined)[];
  left: number;
  renewedAt: number;
}

const options = workerData as LinkOptions;
const encoder = new Encoder({ ignoreUndefined: true });
const decoder = new Decoder();
const port = parentPort!;

const waiting: Request[] = [];
/** Refused by a server that stops: for the one that comes next. */
const parked: Request[] = [];
/** In the order of their ids. */
const asked = new Map<number, Request>();
const feeds = new Map<number, Feed>();
const subs = new Map<number, Feed>();
const frames = new Map<number, Frame>();
const given = new Set<number>();
let [lastId, lastSub, lastFrame, unacknowledged, failures] = [0, 0, 0, 0, 0];
let socket: WebSocket | undefined;
let session: string | undefined;
let pieces: Bytes[] = [];
let pieceBytes = 0;
let up = false;
let heartbeatMs = options.heartbeatMs;
let downSince = performance.now();
let [heard, pinged, ticked] = [0, 0, 0];
let over = false;
let trouble = 'not connected yet';
/** Why the server closes. */
let farewell = '';
/** Nothing before this time. */
let again = 0;
let connectBy = 0;
let beat = 0;
/** When the caller's thread was last seen to turn. */
let turned = performance.now();

let told: FromLink[] = [];
let frozen: ArrayBuffer[] = [];

/** What is told in one turn of the loop goes together. */
function tell(message: FromLink): void {
  if (told.length === 0) setImmediate(tellNow);
  told.push(message);
  if ('frame' in message) frozen.push(message.frame.buffer as ArrayBuffer);
}

function tellNow(): void {
  if (told.length > 0) port.postMessage(told, frozen);
  [told, frozen] = [[], []];
}

// --- writing ---

function write(name: string, id: number, fields: Bytes): void {
  const head = encoder.encode([name, id]);
  // An array of three: the fields follow.
  head[0] = 0x93;
  if (pieceBytes + fields.length > PIECE_BYTES) flush();
  pieces.push(head, fields);
  pieceBytes += head.length + fields.length;
}

const say = (name: string, fields: object, id = 0) => write(name, id, encoder.encode(fields));

function flush(): void {
  if (pieceBytes === 0) return;
  const bytes = Buffer.concat(pieces, pieceBytes);
  [pieces, pieceBytes] = [[], 0];
  socket?.send(bytes, () => pump());
}

/** Sends what the server has room for. */
function pump(): void {
  if (!up || !socket) return;
  let sent = 0;
  while (sent < waiting.length && asked.size < REQUESTS_MAX && socket.bufferedAmount + pieceBytes < UNSENT_BYTES) {
    const request = waiting[sent++]!;
    lastId += 1;
    request.sent = true;
    asked.set(lastId, request);
    write(request.name, lastId, request.fields);
  }
  waiting.splice(0, sent);
  flush();
}

/** A request of our own, which may be sent twice. */
function ask(name: string, fields: object, answered: (fields: any) => void): void {
  waiting.push({ number: 0, name, fields: encoder.encode(fields), repeat: true, patient: true, sent: false, answered });
}

function ping(): void {
  [pinged, unacknowledged] = [performance.now(), 0];
  say('ping', { answered: asked.keys().next().value ?? lastId + 1 });
}

// --- subscriptions and leases ---

function subscribe(feed: Feed): void {
  [feed.sub, feed.received, feed.granted] = [(lastSub += 1), 0, feed.window];
  subs.set(feed.sub, feed);
  const { queues, lease_ms, worker, durability } = feed;
  say('subscribe', { sub: feed.sub, queues, credit: feed.granted, lease_ms, worker, durability });
}

function takeJobs(sub: number, jobs: LeasedJob[], routes: number[]): void {
  const feed = subs.get(sub);
  if (!feed) {
    giveBack(jobs);
    routes.push(Route.None, 0, 0);
    return;
  }
  feed.received += jobs.length;
  feed.window -= jobs.length;
  lastFrame += 1;
  if (feed.renew) {
    const leases = jobs.map(({ queue, id, lease_token }) => ({ queue, id, lease_token }));
    frames.set(lastFrame, { feed, leases, left: leases.length, renewedAt: performance.now() });
  }
  routes.push(Route.Jobs, feed.feed, lastFrame);
}

/** Jobs that nobody waits for. If this is lost, their leases end. */
function giveBack(jobs: LeasedJob[]): void {
  const outcomes = jobs.map(({ queue, id, lease_token }) => ({ queue, id, lease_token, outcome: 'snooze' }));
  ask('outcomes', { outcomes }, () => {});
}

function release(number: number, place: number): Lease | undefined {
  const frame = frames.get(number);
  const lease = frame?.leases[place];
  if (!frame || !lease) return undefined;
  frame.leases[place] = undefined;
  frame.left -= 1;
  if (frame.left === 0) frames.delete(number);
  return lease;
}

/** Renews what has run for a third of its lease, or everything. */
function renew(all: boolean): void {
  const now = performance.now();
  // A loop that hangs is to lose its jobs to others.
  if (now - turned > options.maxBlockedMs) return;
  const batches = new Map<Feed, [number, number][]>();
  for (const [number, frame] of frames) {
    if (!all && now - frame.renewedAt < frame.feed.lease_ms / 3) continue;
    frame.renewedAt = now;
    let batch = batches.get(frame.feed);
    if (!batch) batches.set(frame.feed, (batch = []));
    frame.leases.forEach((lease, place) => lease && batch.push([number, place]));
  }
  for (const [feed, places] of batches) {
    for (let from = 0; from < places.length; from += RENEW_MAX) renewThese(feed, places.slice(from, from + RENEW_MAX));
  }
}

function renewThese(feed: Feed, places: [number, number][]): void {
  const leases = places.map(([number, place]) => frames.get(number)!.leases[place]);
  ask('renew', { leases, lease_ms: feed.lease_ms, worker: feed.worker, durability: feed.durability }, (fields) => {
    const lost = (fields.results ?? []).flatMap((result: { code?: string }, at: number) => {
      if (result.code === undefined) return [];
      const lease = release(...places[at]!);
      return lease ? [{ ...lease, reason: result.code === 'cancelled' ? 'cancelled' : 'lease_lost' }] : [];
    });
    if (lost.length > 0) tell({ lost });
  });
}

function revoked({ leases = [], missed }: any): void {
  const lost = leases.map((one: any) => ({ ...one.lease, reason: one.reason }));
  for (const { id, lease_token } of lost) {
    for (const [number, frame] of frames) {
      const place = frame.leases.findIndex((lease) => lease?.lease_token === lease_token && lease?.id === id);
      if (place >= 0) release(number, place);
    }
  }
  if (lost.length > 0) tell({ lost });
  if (missed) renew(true);
}

// --- reading ---

function hear(data: Buffer): void {
  heard = performance.now();
  const routes: number[] = [];
  let wanted = false;
  for (const message of decoder.decodeMulti(data)) {
    const [name, id, fields] = message as [string, number, any];
    const at = routes.length;
    if (name === 'jobs') takeJobs(fields.sub, fields.jobs ?? [], routes);
    else if (id !== 0) answer(id, name, fields, routes);
    else note(name, fields);
    if (routes.length === at) routes.push(Route.None, 0, 0);
    wanted ||= routes[at] !== Route.None;
  }
  if (wanted) {
    // What the socket gave may lie in memory that it shares.
    tell({ frame: new Uint8Array(data), routes, at: Date.now() });
  }
  // What would be sent now would not be read.
  if (up && farewell !== '') return down(farewell);
  if (up && unacknowledged >= ACKNOWLEDGE) ping();
  pump();
}

function note(name: string, fields: any): void {
  if (name === 'welcome') welcome(fields);
  else if (name === 'revoked') revoked(fields);
  else if (name === 'bye') bye(fields);
  else if (name === 'ended') {
    const feed = subs.get(fields.sub);
    if (!feed) return;
    subs.delete(feed.sub);
    feeds.delete(feed.feed);
    tell({ ended: feed.feed, code: fields.why?.code, detail: fields.why?.detail });
  }
}

function answer(id: number, name: string, fields: any, routes: number[]): void {
  const request = asked.get(id);
  if (!request) return;
  asked.delete(id);
  unacknowledged += 1;
  if (name === 'refused') {
    // Nothing was changed, or twice does no harm.
    const harmless = request.repeat && fields.code === 'unknown_outcome';
    if (fields.code === 'not_received' || fields.code === 'stopping' || harmless) {
      request.sent = false;
      (fields.code === 'stopping' ? parked : waiting).push(request);
      return;
    }
  }
  if (request.number === 0) request.answered?.(fields);
  else routes.push(Route.Answer, request.number, 0);
}

function welcome(fields: any): void {
  [session, heartbeatMs, up, failures] = [fields.session, fields.heartbeat_ms ?? heartbeatMs, true, 0];
  pinged = performance.now();
  const resumed = fields.resumed === true;
  tell({ up: { session: fields.session, resumed, messageBytesMax: fields.message_bytes_max } });
  subs.clear();
  for (const feed of feeds.values()) subscribe(feed);
  if (!resumed) {
    const unanswered = [...asked.values()];
    asked.clear();
    fail(unanswered.filter((request) => !request.repeat), 'the server went away before it answered');
    const safe = unanswered.filter((request) => request.repeat);
    for (const request of safe) request.sent = false;
    waiting.unshift(...safe);
    renew(true);
  }
  pump();
}

/** The server closes. What it calls a bad request is not sent again: it would be the same again. */
function bye({ code, detail }: { code: string; detail: string }): void {
  farewell = `${code}: ${detail}`;
  if (!up) {
    if (session === undefined && code !== 'stopping' && code !== 'overloaded') reject(code, detail);
  } else if (code === 'bad_request') {
    const why = `${detail}; what was under way in that moment may have been carried out`;
    const failed = [...asked.values()].filter((request) => request.number !== 0);
    tell({ failed: failed.map((request) => [request.number, 'refused', why]) });
    asked.clear();
  }
}

// --- the link goes and comes ---

function connect(): void {
  const { url, token, ca } = options;
  connectBy = performance.now() + Math.min(CONNECT_MS[0] * 2 ** failures, CONNECT_MS[1]);
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  farewell = '';
  const one = new WebSocket(url, ['millpond.v1'], {
    headers,
    ca,
    perMessageDeflate: false,
    maxPayload: MESSAGE_BYTES_MAX,
    skipUTF8Validation: true,
  });
  socket = one;
  const current = () => socket === one;
  one.on('open', () => {
    if (!current()) return;
    const received = [...subs.values()].map((feed) => ({ sub: feed.sub, jobs: feed.received }));
    const resume = session === undefined ? undefined : { session, received, asked: [...asked.keys()] };
    const client = `millpond-node ${VERSION}`;
    say('hello', { version: 1, worker: options.worker, client, heartbeat_ms: options.heartbeatMs, resume });
    flush();
  });
  one.on('message', (data) => current() && hear(data as Buffer));
  one.on('unexpected-response', (_, response) => {
    const parts: Buffer[] = [];
    response.on('data', (part: Buffer) => parts.push(part));
    response.on('end', () => current() && turnedAway(response.statusCode ?? 0, Buffer.concat(parts).toString()));
  });
  one.on('error', (error: NodeJS.ErrnoException) => {
    if (!current()) return;
    if (session === undefined && /CERT|SIGNATURE/.test(error.code ?? '')) reject('not_trusted', `${url}: ${error.message}`);
    else down(error.message);
  });
  one.on('close', () => current() && down(farewell || 'the connection was closed'));
}

function turnedAway(status: number, body: string): void {
  let problem: any = {};
  try {
    problem = JSON.parse(body);
  } catch {
    // No answer of Millpond's.
  }
  const code = problem.code ?? 'bad_request';
  const detail = problem.detail ?? `${options.url} answers ${status}, which is no stream of Millpond`;
  if (session === undefined && status < 500 && status !== 429) reject(code, detail);
  else down(`${code}: ${detail}`);
}

/** It would be the same again. */
function reject(code: string, detail: string): void {
  tell({ rejected: { code, detail } });
  end();
}

function down(why: string): void {
  const gone = socket;
  socket = undefined;
  // It may still be connecting, and then says so as an error.
  gone?.on('error', () => {});
  gone?.terminate();
  const now = performance.now();
  if (up) downSince = now;
  [up, pieces, pieceBytes, trouble] = [false, [], 0, why];
  waiting.unshift(...parked.splice(0));
  failures += 1;
  // The first attempt follows at once: mostly a connection was cut, and the server is there.
  const cap = Math.min(AGAIN_MS[0] * 2 ** (failures - 1), AGAIN_MS[1]);
  again = now + (failures === 1 ? Math.random() * 20 : 5 + Math.random() * cap);
  setTimeout(tick, again - now + 1);
  tell({ down: why });
}

function fail(requests: Request[], why: string, kind?: 'away' | 'closed'): void {
  const failed = requests.filter((request) => request.number !== 0);
  if (failed.length === 0) return;
  tell({ failed: failed.map((request) => [request.number, request.sent ? 'unknown' : (kind ?? 'away'), why]) });
}

/** Requests that have waited long enough for a server. */
function giveUp(): void {
  const impatient = [...asked.values(), ...waiting].filter((request) => !request.patient);
  if (impatient.length === 0) return;
  for (const [id, request] of asked) if (!request.patient) asked.delete(id);
  waiting.splice(0, waiting.length, ...waiting.filter((request) => request.patient));
  fail(impatient, trouble);
}

function tick(): void {
  if (over) return;
  const now = performance.now();
  // This thread was not let run: what came meanwhile is still to be read.
  if (now - ticked > heartbeatMs) heard = Math.max(heard, now - heartbeatMs);
  ticked = now;
  const seen = Atomics.load(options.beat, 0);
  if (seen !== beat) [beat, turned] = [seen, now];
  if (up) {
    if (now - heard > 2.5 * heartbeatMs) return down(`nothing was heard for ${Math.round(now - heard)} ms`);
    renew(false);
    if (now - pinged >= heartbeatMs) ping();
    pump();
    return;
  }
  if (socket) {
    if (now > connectBy) down(`${options.url} does not answer`);
  } else if (now >= again) {
    connect();
  }
  if (now - downSince > options.patienceMs) giveUp();
}

function end(): void {
  over = true;
  clearInterval(ticking);
  fail([...asked.values(), ...parked, ...waiting], 'the pond was closed', 'closed');
  tellNow();
  port.close();
  const last = socket;
  socket = undefined;
  last?.on('error', () => {});
  const late = setTimeout(() => last?.terminate(), FAREWELL_MS);
  last?.on('close', () => clearTimeout(late));
  last?.close();
}

// --- what the caller says ---

function add(asks: Ask[], bytes: Bytes): void {
  for (const [number, name, start, end, repeat, patient] of asks) {
    waiting.push({ number, name, fields: bytes.subarray(start, end), repeat, patient, sent: false });
  }
}

function withdraw(number: number): void {
  const place = waiting.findIndex((request) => request.number === number);
  if (place >= 0) {
    waiting.splice(place, 1);
    return;
  }
  for (const [id, request] of asked) {
    if (request.number !== number) continue;
    asked.delete(id);
    if (up) say('withdraw', {}, id);
  }
}

function leave(number: number): void {
  const feed = feeds.get(number);
  if (feed) {
    feeds.delete(number);
    subs.delete(feed.sub);
    if (up) say('unsubscribe', { sub: feed.sub, received: feed.received });
  }
  // Behind all jobs that came.
  tell({ left: number });
}

port.on('message', (message: ToLink) => {
  turned = performance.now();
  for (const options of message.feeds ?? []) {
    const feed = { ...options, sub: 0, received: 0, granted: 0, window: options.credit };
    feeds.set(feed.feed, feed);
    if (up) subscribe(feed);
  }
  if (message.asks && message.bytes) add(message.asks, message.bytes);
  const { released = [], grants = [] } = message;
  for (let at = 0; at < released.length; at += 2) release(released[at]!, released[at + 1]!);
  for (let at = 0; at < grants.length; at += 2) {
    const feed = feeds.get(grants[at]!);
    if (!feed) continue;
    feed.window += grants[at + 1]!;
    feed.granted += grants[at + 1]!;
    given.add(feed.feed);
  }
  // Outcomes and the credit for their places go in one message.
  if (up) {
    for (const number of given) {
      const feed = feeds.get(number);
      if (feed) say('credit', { sub: feed.sub, credit: feed.granted });
    }
  }
  given.clear();
  for (const number of message.leave ?? []) leave(number);
  for (const number of message.withdraw ?? []) withdraw(number);
  if (message.close) {
    if (up) say('bye', {});
    flush();
    end();
    return;
  }
  pump();
});

const ticking = setInterval(tick, Math.max(25, heartbeatMs / TICKS_PER_HEARTBEAT));
connect();
