// What the queues on PostgreSQL share.

import pg from 'pg';

// Connections of a pool: more of them only wait for the same cores.
const CONNECTIONS = 10;

export const options = (port) => ({
  host: '127.0.0.1', port, user: 'postgres', password: 'none', database: 'postgres', max: CONNECTIONS,
});

// A server that takes connections may still be starting.
export async function open(port) {
  const pool = new pg.Pool(options(port));
  pool.on('error', (error) => console.error(error));
  pool.on('connect', (client) => client.on('error', (error) => console.error(error)));
  for (let left = 100; ; left--) {
    try {
      await pool.query('select 1');
      return pool;
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

// Completions are sent in batches behind the handlers' backs: they count when the table says so.
export async function counted(waiting, sink) {
  const left = Math.max(0, await waiting() - sink.jobs);
  let handled = 0;
  return (text) => {
    sink.handle(text);
    handled += 1;
    if (handled !== sink.jobs) return;
    const look = async () => {
      if (await waiting() <= left) sink.acknowledged(sink.jobs);
      else setTimeout(() => look().catch(console.error), 5);
    };
    look().catch(console.error);
  };
}
