// The suite's two halves, told by arguments instead of by npm's environment, on loopback and a free port:
//
//   node driver.mjs PACKAGE origin            its origin server; prints one line with the port
//   node driver.mjs PACKAGE run BASE [ID…]    its client against BASE; prints the tests and their results as JSON
//   node driver.mjs PACKAGE list              the tests, and the results of other caches that the package carries
//
// PACKAGE is the folder of the package or of a checkout of a newer edition.

import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [folder, mode, base, ...ids] = process.argv.slice(2)
const load = name => import(pathToFileURL(path.join(folder, name)).href)

async function suites () {
  const all = [...(await load('tests/index.mjs')).default]
  // The suite's own command line adds this group by hand; newer editions have dropped or listed it.
  if (fs.existsSync(path.join(folder, 'tests/surrogate-control.mjs'))) {
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
  await load('server/server.mjs')
}

async function run () {
  const all = await suites()
  const { runTests, getResults } = await load('client/runner.mjs')
  const fetch = createRequire(path.resolve(folder, 'package.json'))('node-fetch')
  const chosen = ids.length === 0
    ? all
    : all.map(suite => ({ ...suite, tests: suite.tests.filter(test => ids.includes(test.id)) }))
  await runTests(chosen, fetch, false, base)
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
