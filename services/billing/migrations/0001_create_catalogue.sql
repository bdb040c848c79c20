-- kind: expand
-- min_compatible_code: 1
-- What a publisher sells. Prices never change: other figures are another price.
CREATE TABLE product (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL CHECK (name <> ''),
    features text[] NOT NULL CHECK (cardinality(features) BETWEEN 1 AND 20),
    external_id text CHECK (external_id <> ''),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT product_external_id UNIQUE (account_id, external_id)
);

CREATE TABLE plan (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    product_id uuid NOT NULL,
    name text NOT NULL CHECK (name <> ''),
    interval text NOT NULL CHECK (interval IN ('day', 'week', 'month', 'year')),
    interval_count integer NOT NULL CHECK (interval_count > 0),
    trial_days integer NOT NULL CHECK (trial_days >= 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT plan_product FOREIGN KEY (account_id, product_id) REFERENCES product (account_id, id)
);

CREATE INDEX plan_by_product ON plan (account_id, product_id);

CREATE TABLE price (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    plan_id uuid NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL,
    archived_at timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT price_plan FOREIGN KEY (account_id, plan_id) REFERENCES plan (account_id, id)
);

CREATE INDEX price_by_plan ON price (account_id, plan_id);

CREATE FUNCTION price_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ROW (NEW.account_id, NEW.id, NEW.plan_id, NEW.amount_minor, NEW.currency, NEW.created_at)
        IS DISTINCT FROM ROW (OLD.account_id, OLD.id, OLD.plan_id, OLD.amount_minor, OLD.currency, OLD.created_at) THEN
        RAISE EXCEPTION 'a price never changes' USING ERRCODE = 'check_violation', CONSTRAINT = 'price_immutable';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER price_stays BEFORE UPDATE ON price FOR EACH ROW EXECUTE FUNCTION price_stays();

SELECT gatefold_tenant_table('product');
SELECT gatefold_tenant_table('plan');
SELECT gatefold_tenant_table('price');

SELECT gatefold_marks('product', '{"account_id": "none", "id": "none", "name": "none", "features": "none",
    "external_id": "none", "created_at": "none"}'::jsonb);
SELECT gatefold_marks('plan', '{"account_id": "none", "id": "none", "product_id": "none", "name": "none",
    "interval": "none", "interval_count": "none", "trial_days": "none", "created_at": "none"}'::jsonb);
SELECT gatefold_marks('price', '{"account_id": "none", "id": "none", "plan_id": "none", "amount_minor": "none",
    "currency": "none", "created_at": "none", "archived_at": "none"}'::jsonb);
