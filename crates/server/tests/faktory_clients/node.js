// The npm package `faktory-worker`, unmodified: pushes, works, fails, holds a job while the server is killed, is quiet
// and ends when an operator asks for it.
// usage: node node.js FOLDER, with FAKTORY_URL, MILLPOND_URL and MILLPOND_BIN
const faktory = require("faktory-worker");
const { execFileSync } = require("child_process");
const fs = require("fs");
const path = require("path");

const folder = process.argv[2];
const at = (name) => path.join(folder, name);
const until = async (condition) => {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50));
};
const ended = new Set();

faktory.register("ok", async (word) => { ended.add(word); });
faktory.register("bad", async () => { ended.add("bad"); throw new TypeError("nope"); });
faktory.register("held", async () => {
  fs.writeFileSync(at("held"), "");
  await until(() => fs.existsSync(at("go")));
  ended.add("held");
});

const push = async (client, jobtype, argument) => {
  const job = client.job(jobtype, argument);
  job.queue = "node";
  job.jid = `node-${jobtype}-${argument}`;
  await job.push();
};

(async () => {
  const client = await faktory.connect();
  for (const jobtype of ["ok", "bad", "held"]) await push(client, jobtype, "one");
  await client.close();
  const worker = await faktory.work({ queues: ["node"], concurrency: 2, beatInterval: 1 });
  // The server is killed below it; it must go on by itself.
  worker.on("error", (error) => console.error(String(error).split("\n")[0]));
  await until(() => ended.has("one") && ended.has("bad") && ended.has("held"));
  const again = await faktory.connect();
  await until(async () => (await again.info()).faktory.sets.working === 0);
  await again.close();
  const ask = (what) => execFileSync(process.env.MILLPOND_BIN, ["worker", what, `faktory:${worker.wid}`]);
  ask("quiet");
  await until(() => worker.quieted);
  const stop = worker.stop.bind(worker);
  const stopped = new Promise((resolve) => { worker.stop = () => stop().then(resolve); });
  ask("stop");
  await stopped;
  fs.writeFileSync(at("done"), "");
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
