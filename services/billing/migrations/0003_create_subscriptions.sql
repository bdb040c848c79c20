-- kind: expand
-- min_compatible_code: 1
-- Who subscribed to what, what is owed for it and what was tried to collect it.
CREATE TABLE subscription (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    subject_id uuid NOT NULL,
    product_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    price_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('incomplete', 'trialing', 'active', 'past_due', 'ended')),
    description text NOT NULL,
    features text[] NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    interval text NOT NULL CHECK (interval IN ('day', 'week', 'month', 'year')),
    interval_count integer NOT NULL CHECK (interval_count > 0),
    anchor timestamptz NOT NULL,
    trial_start timestamptz CHECK (trial_start < anchor),
    zone text NOT NULL,
    period_number integer NOT NULL CHECK (period_number >= 0),
    period_start timestamptz,
    period_end timestamptz,
    payment_method_id uuid,
    charge_at timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason text,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    PRIMARY KEY (account_id, id),
    CONSTRAINT subscription_price FOREIGN KEY (account_id, price_id) REFERENCES price (account_id, id),
    CONSTRAINT subscription_connection FOREIGN KEY (account_id, connection_id)
        REFERENCES payment_connection (account_id, id),
    CONSTRAINT subscription_period CHECK (
        (period_number = 0 AND period_start IS NULL AND period_end IS NULL)
        OR (period_number > 0 AND period_start < period_end)
    ),
    CONSTRAINT subscription_running CHECK (state NOT IN ('trialing', 'active', 'past_due') OR period_number > 0),
    CONSTRAINT subscription_end CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);

-- At most one subscription of a reader to a product at a time, one that awaits its first payment included.
CREATE UNIQUE INDEX subscription_live ON subscription (account_id, subject_id, product_id) WHERE state <> 'ended';
CREATE INDEX subscription_by_subject ON subscription (account_id, subject_id, id);

CREATE TABLE invoice (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'paid', 'void')),
    number text,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    total_minor bigint NOT NULL CHECK (total_minor >= 0),
    paid_minor bigint NOT NULL CHECK (paid_minor >= 0),
    due_minor bigint NOT NULL CHECK (due_minor >= 0),
    period_number integer NOT NULL CHECK (period_number > 0),
    issued_at timestamptz NOT NULL,
    paid_at timestamptz,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    PRIMARY KEY (account_id, id),
    CONSTRAINT invoice_subscription FOREIGN KEY (account_id, subscription_id)
        REFERENCES subscription (account_id, id),
    CONSTRAINT invoice_number UNIQUE (account_id, number),
    CONSTRAINT invoice_identity CHECK (
        paid_minor + due_minor = CASE state WHEN 'void' THEN 0 ELSE total_minor END
    ),
    CONSTRAINT invoice_paid CHECK (
        (state = 'paid') = (number IS NOT NULL) AND (state = 'paid') = (paid_at IS NOT NULL)
        AND (state <> 'paid' OR due_minor = 0)
    )
);

-- One invoice a period, however many workers renew at once.
CREATE UNIQUE INDEX invoice_period ON invoice (account_id, subscription_id, period_number) WHERE state <> 'void';
CREATE INDEX invoice_by_subject ON invoice (account_id, subject_id, id);

CREATE TABLE invoice_line (
    account_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    position integer NOT NULL CHECK (position > 0),
    description text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL CHECK (period_end > period_start),
    PRIMARY KEY (account_id, invoice_id, position),
    CONSTRAINT invoice_line_invoice FOREIGN KEY (account_id, invoice_id) REFERENCES invoice (account_id, id)
);

-- The last number an account has given; its row is the only lock, and only the account's own payments wait for it.
CREATE TABLE invoice_counter (
    account_id uuid PRIMARY KEY,
    last_number bigint NOT NULL CHECK (last_number > 0)
);

CREATE FUNCTION invoice_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'an invoice is never deleted'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
    END IF;
    IF ROW (NEW.account_id, NEW.id, NEW.subscription_id, NEW.currency, NEW.total_minor, NEW.period_number, NEW.issued_at)
        IS DISTINCT FROM
        ROW (OLD.account_id, OLD.id, OLD.subscription_id, OLD.currency, OLD.total_minor, OLD.period_number, OLD.issued_at)
        OR (OLD.state <> 'open' AND ROW (NEW.state, NEW.number, NEW.paid_minor, NEW.due_minor, NEW.paid_at)
            IS DISTINCT FROM ROW (OLD.state, OLD.number, OLD.paid_minor, OLD.due_minor, OLD.paid_at)) THEN
        RAISE EXCEPTION 'an issued invoice stays as it is'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER invoice_stays BEFORE UPDATE OR DELETE ON invoice FOR EACH ROW EXECUTE FUNCTION invoice_stays();

CREATE FUNCTION invoice_line_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a line of an invoice stays as it is'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
END
$$;

CREATE TRIGGER invoice_line_stays BEFORE UPDATE OR DELETE ON invoice_line
    FOR EACH ROW EXECUTE FUNCTION invoice_line_stays();

-- Σ lines = total, looked at when the transaction commits.
CREATE FUNCTION invoice_adds_up() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint;
    given bigint;
    invoice_key uuid := CASE TG_TABLE_NAME WHEN 'invoice' THEN (to_jsonb(NEW) ->> 'id')::uuid
        ELSE (to_jsonb(NEW) ->> 'invoice_id')::uuid END;
BEGIN
    SELECT total_minor INTO wanted FROM invoice WHERE account_id = NEW.account_id AND id = invoice_key;
    SELECT sum(amount_minor) INTO given FROM invoice_line
        WHERE account_id = NEW.account_id AND invoice_id = invoice_key;
    IF wanted IS DISTINCT FROM given THEN
        RAISE EXCEPTION 'the lines of the invoice do not add up'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_lines_total';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER invoice_adds_up AFTER INSERT ON invoice
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();
CREATE CONSTRAINT TRIGGER invoice_line_adds_up AFTER INSERT ON invoice_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();

CREATE TABLE payment (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('payment', 'setup')),
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    state text NOT NULL CHECK (state IN ('reserved', 'unknown', 'called', 'requires_action', 'processing',
        'succeeded', 'failed', 'cancelled')),
    off_session boolean NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    provider_intent text,
    provider_customer text,
    provider_method text,
    client_secret_sealed bytea,
    error_reason text,
    decline_code text,
    observed_second bigint NOT NULL,
    observed_event text NOT NULL,
    created_at timestamptz NOT NULL,
    called_at timestamptz,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    PRIMARY KEY (account_id, id),
    CONSTRAINT payment_invoice FOREIGN KEY (account_id, invoice_id) REFERENCES invoice (account_id, id),
    CONSTRAINT payment_kind CHECK ((kind = 'setup') = (amount_minor = 0)),
    CONSTRAINT payment_intent UNIQUE (account_id, connection_id, provider_intent)
);

-- Never two tries under way for one invoice: that is how a reader would be charged twice.
CREATE UNIQUE INDEX payment_under_way ON payment (account_id, invoice_id)
    WHERE state IN ('reserved', 'unknown', 'called', 'requires_action', 'processing');
CREATE INDEX payment_by_invoice ON payment (account_id, invoice_id);
CREATE INDEX payment_by_subject ON payment (account_id, subject_id);

CREATE FUNCTION payment_within_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM invoice WHERE account_id = NEW.account_id AND id = NEW.invoice_id
        AND state = 'open' AND currency = NEW.currency AND due_minor >= NEW.amount_minor) THEN
        RAISE EXCEPTION 'a payment is never more than is due'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'payment_within_due';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER payment_within_due BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION payment_within_due();

CREATE TABLE checkout (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    subject_id uuid NOT NULL,
    subscription_id uuid NOT NULL,
    invoice_id uuid NOT NULL,
    payment_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > created_at),
    completed_at timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT checkout_subscription UNIQUE (account_id, subscription_id),
    CONSTRAINT checkout_payment FOREIGN KEY (account_id, payment_id) REFERENCES payment (account_id, id)
);

CREATE INDEX checkout_by_subject ON checkout (account_id, subject_id);

SELECT gatefold_tenant_table('subscription');
SELECT gatefold_tenant_table('invoice');
SELECT gatefold_tenant_table('invoice_line');
SELECT gatefold_tenant_table('invoice_counter');
SELECT gatefold_tenant_table('payment');
SELECT gatefold_tenant_table('checkout');

REVOKE DELETE ON subscription, invoice, invoice_line, invoice_counter, payment FROM billing_app;

SELECT gatefold_marks('subscription', '{"account_id": "none", "id": "none",
    "subject_id": "pseudonym; basis: contract; retention: years_10", "product_id": "none", "plan_id": "none",
    "price_id": "none", "connection_id": "none", "state": "none", "description": "none", "features": "none",
    "amount_minor": "none", "currency": "none", "interval": "none", "interval_count": "none", "anchor": "none",
    "trial_start": "none", "zone": "none", "period_number": "none", "period_start": "none", "period_end": "none",
    "payment_method_id": "none", "charge_at": "none", "created_at": "none", "ended_at": "none", "end_reason": "none",
    "sequence": "none"}'::jsonb);
SELECT gatefold_marks('invoice', '{"account_id": "none", "id": "none", "subscription_id": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: years_10", "state": "none",
    "number": "none", "currency": "none", "total_minor": "none", "paid_minor": "none", "due_minor": "none",
    "period_number": "none", "issued_at": "none", "paid_at": "none", "sequence": "none"}'::jsonb);
SELECT gatefold_marks('invoice_line', '{"account_id": "none", "invoice_id": "none", "position": "none",
    "description": "none", "quantity": "none", "amount_minor": "none", "period_start": "none",
    "period_end": "none"}'::jsonb);
SELECT gatefold_marks('invoice_counter', '{"account_id": "none", "last_number": "none"}'::jsonb);
SELECT gatefold_marks('payment', '{"account_id": "none", "id": "none", "invoice_id": "none", "subscription_id": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: years_10", "connection_id": "none",
    "kind": "none", "amount_minor": "none", "currency": "none", "state": "none", "off_session": "none",
    "attempt": "none",
    "provider_intent": "none",
    "provider_customer": "pseudonym; basis: legal_obligation; retention: years_10",
    "provider_method": "pseudonym; basis: legal_obligation; retention: years_10",
    "client_secret_sealed": "secret; basis: contract; retention: years_10; sealed: account; field: 1",
    "error_reason": "payment; basis: contract; retention: years_10",
    "decline_code": "payment; basis: contract; retention: years_10",
    "observed_second": "none", "observed_event": "none", "created_at": "none", "called_at": "none",
    "sequence": "none"}'::jsonb);
SELECT gatefold_marks('checkout', '{"account_id": "none", "id": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: years_10", "subscription_id": "none",
    "invoice_id": "none", "payment_id": "none", "created_at": "none", "expires_at": "none",
    "completed_at": "none"}'::jsonb);
