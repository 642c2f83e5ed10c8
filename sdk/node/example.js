// millpond work emails -- node example.js
import { Fail, Snooze, handle } from "./millpond-handler.js";

const sent = new Map();

handle(async (job) => {
  const { to, subject } = job.body;
  if (!to?.includes("@")) throw new Fail(`not an address: ${to}`, { kind: "BadAddress" });
  if (subject === "later") throw new Snooze(60_000);
  if (subject === "flaky" && job.attempt === 1) throw new Error("the mail server is busy");
  console.log("this goes to stderr and harms nothing");
  job.log(`sending to ${to}`);
  job.progress({ percent: 50 });
  sent.set(to, (sent.get(to) ?? 0) + 1);
  return { to, messages: sent.get(to), pid: process.pid };
});
