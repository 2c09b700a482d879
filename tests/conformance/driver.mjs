// The suite's two halves, told by arguments instead of by npm's environment, on loopback and a free port:
//
//   node driver.mjs PACKAGE origin            its origin server; prints one line with the port
//   node driver.mjs PACKAGE run BASE [ID…]    its client against BASE; prints the tests and their results as JSON
//   node driver.mjs PACKAGE list              the tests, and the results of other caches that the package carries
//
// PACKAGE is the folder of the package, or of a checkout of a newer edition, which keeps its programs in test-engine/ and
// may take the runtime's own fetch.

import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [folder, mode, base, ...ids] = process.argv.slice(2)
const engine = fs.existsSync(path.join(folder, 'test-engine')) ? path.join(folder, 'test-engine') : folder
const load = name => import(pathToFileURL(path.join(folder, name)).href)
const program = name => import(pathToFileURL(path.join(engine, name)).href)

async function client (runTests, tests) {
  if (runTests.length < 4) return runTests(tests, false, base)
  const { resolve } = createRequire(path.resolve(folder, 'package.json'))
  for (const name of ['node-fetch', 'node-fetch-with-proxy']) {
    let found
    try { found = resolve(name) } catch { continue }
    return runTests(tests, (await import(pathToFileURL(found).href)).default, false, base)
  }
  throw new Error(`no node-fetch beside ${folder}: npm install there`)
}

async function suites () {
  const all = [...(await load('tests/index.mjs')).default]
  // The package's own command line adds this group by hand; newer editions have dropped it.
  if (engine === folder && fs.existsSync(path.join(folder, 'tests/surrogate-control.mjs'))) {
    const surrogate = (await load('tests/surrogate-control.mjs')).default
    if (!all.some(suite => suite.id === surrogate.id)) all.push(surrogate)
  }
  return all
}

function outline (all) {
  return all.map(suite => ({
    id: suite.id,
    name: suite.name,
    tests: suite.tests.map(test => ({
      id: test.id,
      name: test.name,
      kind: test.kind || 'required',
      needs: test.depends_on || [],
      browser: test.browser_only === true
    }))
  }))
}

async function origin () {
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function () {
    this.keepAliveTimeout = 60000 // outlives the suite's pauses: a connection closed under a request is not the test
    return listen.call(this, 0, '127.0.0.1', () => process.stdout.write(`${this.address().port}\n`))
  }
  console.log = () => {}
  Object.assign(process.env, { npm_config_protocol: 'http', npm_config_port: '0', npm_config_pidfile: os.devNull })
  await program('server/server.mjs')
}

async function run () {
  const all = await suites()
  const { runTests, getResults } = await program('client/runner.mjs')
  const chosen = ids.length === 0
    ? all
    : all.map(suite => ({ ...suite, tests: suite.tests.filter(test => ids.includes(test.id)) }))
  await client(runTests, chosen)
  return { suites: outline(all), results: getResults() }
}

async function list () {
  const others = []
  if (fs.existsSync(path.join(folder, 'results/index.mjs'))) {
    for (const { name, version, type, file } of (await load('results/index.mjs')).default) {
      if (type === 'browser') continue
      const results = JSON.parse(fs.readFileSync(path.join(folder, 'results', file)))
      others.push({ name, version, results })
    }
  }
  return { suites: outline(await suites()), others }
}

if (mode === 'origin') await origin()
else process.stdout.write(JSON.stringify(await (mode === 'run' ? run() : list())))
