// BullMQ on its own backend for PostgreSQL.

import { createPostgresBackend, setDefaultBackendFactory } from 'bullmq';
import { through } from './bullmq.mjs';
import { open, options } from './postgres.mjs';

export async function connect(port) {
  await (await open(port)).end();
  setDefaultBackendFactory(createPostgresBackend);
  return through({ ...options(port), migrate: true });
}
