// Stripe's official Node SDK uses Florin as it uses Stripe, at /v1: it knows no other path.
//
// FLORIN_URL, FLORIN_KEY and FLORIN_OPEN_URL (a server without keys and with a small rate limit)
// come from the environment.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";
import Stripe from "stripe";

const target = new URL(process.env.FLORIN_URL);

function connect(url, key = process.env.FLORIN_KEY, options = {}) {
  const { hostname, port } = new URL(url);
  return new Stripe(key, {
    host: hostname, port, protocol: "http", maxNetworkRetries: 0, telemetry: false, ...options,
  });
}

const stripe = connect(target);

async function until(ask, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await ask();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${seconds} s: ${ask}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function settled(resource, id) {
  return until(async () => {
    const found = await resource.retrieve(id);
    return found.status !== "pending" && found;
  });
}

async function listening(handler) {
  const server = http.createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${server.address().port}` };
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

let receiver;
const heard = [];
before(async () => {
  receiver = await listening(async (request, response) => {
    heard.push({ headers: request.headers, body: await bodyOf(request) });
    response.end("ok");
  });
});
after(() => receiver.server.close());

test("a charge is created, succeeds and is in the balance", async () => {
  const made = await stripe.charges.create({
    amount: 1000, currency: "nok", customer: "cust_123", description: "Tea & cake",
    metadata: { order: "7", naïve: "ja" },
  });
  assert.deepEqual(
    [made.object, made.amount, made.currency, made.customer, made.status],
    ["charge", 1000, "nok", "cust_123", "pending"],
  );
  assert.deepEqual({ ...made.metadata }, { order: "7", naïve: "ja" });
  const charge = await settled(stripe.charges, made.id);
  assert.deepEqual([charge.status, charge.paid, charge.amount_captured], ["succeeded", true, 1000]);
  const moved = await stripe.balanceTransactions.retrieve(charge.balance_transaction);
  assert.deepEqual([moved.source, moved.net, moved.type], [charge.id, 1000, "charge"]);
  const balance = await stripe.balance.retrieve();
  assert.equal(balance.available.find((part) => part.currency === "nok").amount, 1000);
});

test("a decline ends failed with its code", async () => {
  const made = await stripe.charges.create({ amount: 99003, currency: "usd" });
  const charge = await settled(stripe.charges, made.id);
  assert.deepEqual([charge.status, charge.failure_code], ["failed", "expired_card"]);
});

test("refunds in part, in full, and never more", async () => {
  const made = await stripe.charges.create({ amount: 10_000, currency: "dkk" });
  await settled(stripe.charges, made.id);
  const part = await stripe.refunds.create({
    charge: made.id, amount: 3_000, reason: "duplicate", metadata: { ticket: "12" },
  });
  assert.deepEqual(
    [part.object, part.amount, part.charge, part.status, part.reason, part.metadata.ticket],
    ["refund", 3_000, made.id, "pending", "duplicate", "12"],
  );
  await assert.rejects(stripe.refunds.create({ charge: made.id, amount: 7_001 }), (error) => {
    assert.ok(error instanceof Stripe.errors.StripeInvalidRequestError);
    assert.deepEqual([error.code, error.param, error.statusCode], ["amount_too_large", "amount", 400]);
    return true;
  });
  const rest = await stripe.refunds.create({ charge: made.id });
  assert.equal(rest.amount, 7_000);
  assert.equal((await settled(stripe.refunds, part.id)).status, "succeeded");
  await settled(stripe.refunds, rest.id);
  const charge = await stripe.charges.retrieve(made.id, { expand: ["balance_transaction"] });
  assert.deepEqual([charge.refunded, charge.amount_refunded], [true, 10_000]);
  assert.equal(charge.balance_transaction.amount, 10_000);
  const listed = await stripe.refunds.list({ charge: made.id });
  assert.deepEqual(listed.data.map((refund) => refund.id), [rest.id, part.id]);
  const moved = await stripe.balanceTransactions.list({ currency: "dkk", type: "refund" });
  assert.deepEqual(moved.data.map((one) => one.amount).sort(), [-3_000, -7_000]);
});

test("lists page by themselves over 250 charges", async () => {
  const made = [];
  for (let n = 0; n < 250; n += 1) {
    made.push((await stripe.charges.create({ amount: n + 1, currency: "jpy", customer: "pager" })).id);
  }
  const found = [];
  for await (const charge of stripe.charges.list({ customer: "pager", limit: 100 })) {
    found.push(charge.id);
  }
  assert.deepEqual(found, made.toReversed());
  const up = await stripe.charges.list({ customer: "pager", limit: 5, ending_before: made[9] });
  assert.deepEqual(up.data.map((charge) => charge.id), made.slice(10, 15).toReversed());
  assert.equal(up.has_more, true);
});

test("a repeated key is one charge, and another body is an idempotency error", async () => {
  const make = (amount) =>
    stripe.charges.create({ amount, currency: "usd" }, { idempotencyKey: "node-order-7" });
  const made = await Promise.all(Array.from({ length: 10 }, () => make(700)));
  assert.equal(new Set(made.map((charge) => charge.id)).size, 1);
  await assert.rejects(make(701), (error) => {
    assert.ok(error instanceof Stripe.errors.StripeIdempotencyError);
    assert.equal(error.statusCode, 400);
    return true;
  });
});

test("a retry after a lost answer is the same charge", async () => {
  let lose = 2;
  const keys = [];
  const proxy = await listening(async (request, response) => {
    keys.push(request.headers["idempotency-key"]);
    const onward = http.request(
      { host: target.hostname, port: target.port, method: request.method, path: request.url,
        headers: request.headers },
      async (answer) => {
        const body = await bodyOf(answer);
        if (lose > 0) {
          lose -= 1;
          request.socket.destroy();
          return;
        }
        response.writeHead(answer.statusCode, answer.headers).end(body);
      },
    );
    onward.end(await bodyOf(request));
  });
  const retrying = connect(proxy.url, process.env.FLORIN_KEY, { maxNetworkRetries: 2 });
  const made = await retrying.charges.create({ amount: 4321, currency: "usd", customer: "node-retried" });
  proxy.server.closeAllConnections();
  proxy.server.close();
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  const listed = await stripe.charges.list({ customer: "node-retried" });
  assert.deepEqual(listed.data.map((charge) => charge.id), [made.id]);
});

test("errors are the classes that the SDK has for them", async () => {
  const { errors } = Stripe;
  const refused = async (promise, kind, expected) => {
    await assert.rejects(promise, (error) => {
      assert.ok(error instanceof kind, `${error.constructor.name} is not ${kind.name}`);
      assert.deepEqual([error.statusCode, error.code], expected);
      assert.match(error.requestId, /^req_/);
      return true;
    });
  };
  await refused(
    stripe.charges.create({ amount: -1, currency: "usd" }),
    errors.StripeInvalidRequestError, [400, "parameter_invalid"],
  );
  await refused(
    stripe.charges.retrieve("pay_none"), errors.StripeInvalidRequestError, [404, "resource_missing"],
  );
  await refused(
    connect(target, "sk_test_of_nobody_at_all_1234").charges.list(),
    errors.StripeAuthenticationError, [401, "api_key_invalid"],
  );
  const open = process.env.FLORIN_OPEN_URL;
  await assert.rejects(
    (async () => {
      for (let n = 0; n < 20; n += 1) await connect(open).balance.retrieve();
    })(),
    (error) => error instanceof errors.StripeRateLimitError && error.code === "rate_limit_exceeded",
  );
  const strange = await listening(async (request, response) => {
    const onward = http.request(
      { host: new URL(open).hostname, port: new URL(open).port, path: request.url,
        headers: { ...request.headers, host: "evil.example" } },
      (answer) => response.writeHead(answer.statusCode, answer.headers) && answer.pipe(response),
    );
    onward.end();
  });
  await refused(
    connect(strange.url).balance.retrieve(),
    errors.StripePermissionError, [403, "host_not_local"],
  );
  strange.server.closeAllConnections();
  strange.server.close();
  await assert.rejects(
    connect(strange.url).balance.retrieve(),
    (error) => error instanceof errors.StripeConnectionError,
  );
});

test("webhooks are subscribed, changed, delivered, verified and listed", async () => {
  const made = await stripe.webhookEndpoints.create({
    url: "http://127.0.0.1:1/", enabled_events: ["payment.failed"], metadata: { a: "1", b: "2" },
  });
  assert.match(made.secret, /^whsec_/);
  const changed = await stripe.webhookEndpoints.update(made.id, {
    url: receiver.url, enabled_events: ["payment.completed", "refund.completed"],
    metadata: { a: "" }, description: "tested",
  });
  assert.deepEqual(changed.enabled_events, ["payment.completed", "refund.completed"]);
  assert.deepEqual({ ...changed.metadata }, { b: "2" });
  const charge = await stripe.charges.create({ amount: 500, currency: "usd" });
  const about = (id) =>
    heard.find((one) => JSON.parse(one.body).data.object.id === id);
  const delivered = await until(async () => about(charge.id));
  const event = stripe.webhooks.constructEvent(
    delivered.body, delivered.headers["stripe-signature"], made.secret,
  );
  assert.equal(event.type, "payment.completed");
  assert.throws(
    () => stripe.webhooks.constructEvent(
      `${delivered.body} `, delivered.headers["stripe-signature"], made.secret,
    ),
    (error) => error instanceof Stripe.errors.StripeSignatureVerificationError,
  );
  const stored = await stripe.events.retrieve(event.id);
  assert.deepEqual([stored.type, stored.data.object.id], ["payment.completed", charge.id]);
  const refund = await stripe.refunds.create({ charge: charge.id });
  await until(async () => about(refund.id));
  const told = await stripe.events.list({ types: ["refund.completed"], limit: 100 });
  assert.ok(told.data.some((one) => one.data.object.id === refund.id));
  assert.ok(told.data.every((one) => one.type === "refund.completed"));
  const listed = await stripe.webhookEndpoints.list();
  assert.ok(listed.data.some((one) => one.id === made.id));
  const deleted = await stripe.webhookEndpoints.del(made.id);
  assert.deepEqual([deleted.id, deleted.deleted], [made.id, true]);
  await assert.rejects(
    stripe.webhookEndpoints.retrieve(made.id),
    (error) => error instanceof Stripe.errors.StripeInvalidRequestError,
  );
});
