-- kind: expand
-- min_compatible_code: 1
-- Stripe's events as they were taken: what moves a payment and nothing else, so no name, address or card is in here.
-- Routing table without row-level security: an event is taken before its account's work begins.
CREATE TABLE stripe_event (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    event text NOT NULL CHECK (event <> ''),
    type text NOT NULL,
    created_second bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('received', 'done', 'ignored', 'parked', 'refused')),
    payment_id uuid,
    intent text,
    status text,
    amount bigint,
    currency text,
    method text,
    error_reason text,
    decline_code text,
    outcome text,
    received_at timestamptz NOT NULL,
    handled_at timestamptz,
    CONSTRAINT stripe_event_once UNIQUE (connection_id, event)
);

CREATE INDEX stripe_event_by_account ON stripe_event (account_id, state);

SELECT gatefold_marks('stripe_event', '{"id": "none", "account_id": "none", "connection_id": "none", "event": "none",
    "type": "none", "created_second": "none", "state": "none", "payment_id": "none",
    "intent": "none", "status": "none", "amount": "none",
    "currency": "none",
    "method": "none", "error_reason": "none", "decline_code": "none",
    "outcome": "none", "received_at": "none", "handled_at": "none"}'::jsonb);
