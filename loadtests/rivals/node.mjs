// bee-queue and BullMQ: node.mjs <bee-queue | bullmq> <store URL> <mode> <jobs>, as base.py has it.
import { createRequire } from 'node:module'
import { performance } from 'node:perf_hooks'

const [name, url, mode, count] = process.argv.slice(2)
const jobs = Number(count)
const require = createRequire(new URL('.installed/node/package.json', import.meta.url))
const BULK = 100, AT_ONCE = 100, PACE_MS = 20, TELL_MS = 50, STAMP = 20
const now = () => process.hrtime.bigint()
const payload = () => String(now()).padStart(STAMP, '0') + 'x'.repeat(200 - STAMP)
const { hostname: host, port } = new URL(url)
const redis = { host, port: Number(port) }

const latencies = []
let first = 0, last = 0, cpu = null
function handled (text) {
  const at = Number(now()) / 1e9
  if (latencies.length === 0) { first = at; cpu = process.cpuUsage() }
  last = at
  latencies.push(at - Number(BigInt(text.slice(0, STAMP))) / 1e9)
}

const rivals = {
  'bee-queue' () {
    const Queue = require('bee-queue')
    const make = options => new Queue('jobs', { redis, removeOnSuccess: false, ...options })
    return {
      open () { this.queue = make({ isWorker: false, getEvents: false, sendEvents: false, storeJobs: false }); return this.queue.ready() },
      enqueue (text) { return this.queue.createJob({ text }).save() },
      async enqueueMany (texts) { await this.queue.saveAll(texts.map(text => this.queue.createJob({ text }))) },
      work () {
        make({ getEvents: false, storeJobs: false }).process(100, async job => handled(job.data.text))
      }
    }
  },
  bullmq () {
    const { Queue, Worker } = require('bullmq')
    const connection = { ...redis, maxRetriesPerRequest: null }
    return {
      open () { this.queue = new Queue('jobs', { connection }); return this.queue.waitUntilReady() },
      enqueue (text) { return this.queue.add('job', { text }) },
      enqueueMany (texts) { return this.queue.addBulk(texts.map(text => ({ name: 'job', data: { text } }))) },
      work () { this.worker = new Worker('jobs', async job => handled(job.data.text), { connection, concurrency: 100 }) }
    }
  }
}

const rival = rivals[name]()
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

async function enqueue () {
  if (mode === 'bulk' || mode === 'fill') {
    for (let start = 0; start < jobs; start += BULK) {
      await rival.enqueueMany(Array.from({ length: Math.min(BULK, jobs - start) }, payload))
    }
  } else if (mode === 'single' || mode === 'pace') {
    for (let i = 0; i < jobs; i++) {
      await rival.enqueue(payload())
      if (mode === 'pace') await sleep(PACE_MS)
    }
  } else {
    let left = jobs
    const take = async () => { while (left-- > 0) await rival.enqueue(payload()) }
    await Promise.all(Array.from({ length: AT_ONCE }, take))
  }
}

if (mode === 'work') {
  let said = -1
  setInterval(() => { if (latencies.length !== said) { said = latencies.length; console.log(said) } }, TELL_MS)
  process.stdin.on('end', () => {
    const spent = process.cpuUsage(cpu ?? undefined)
    latencies.sort((a, b) => a - b)
    const told = { handled: latencies.length, first, last, cpu: (spent.user + spent.system) / 1e6, latencies }
    process.stdout.write(JSON.stringify(told) + '\n', () => process.exit(0))
  }).resume()
  rival.work()
} else {
  await rival.open()
  const began = performance.now(), spent = process.cpuUsage()
  await enqueue()
  const elapsed = (performance.now() - began) / 1000, used = process.cpuUsage(spent)
  process.stdout.write(JSON.stringify({ elapsed, cpu: (used.user + used.system) / 1e6 }) + '\n', () => process.exit(0))
}
