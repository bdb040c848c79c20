-- kind: expand
-- min_compatible_code: 1
-- The double-entry ledger: appended to, never changed, balanced per entry and currency when a transaction commits.
CREATE TABLE ledger_entry (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('invoice', 'payment')),
    reference_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    -- A fact is entered once, whoever finds out about it and however often.
    CONSTRAINT ledger_entry_once UNIQUE (account_id, kind, reference_id)
);

CREATE TABLE ledger_posting (
    account_id uuid NOT NULL,
    entry_id uuid NOT NULL,
    position integer NOT NULL CHECK (position > 0),
    ledger_account text NOT NULL CHECK (ledger_account <> ''),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    debit_minor bigint NOT NULL CHECK (debit_minor >= 0),
    credit_minor bigint NOT NULL CHECK (credit_minor >= 0),
    PRIMARY KEY (account_id, entry_id, position),
    CONSTRAINT ledger_posting_entry FOREIGN KEY (account_id, entry_id) REFERENCES ledger_entry (account_id, id),
    CONSTRAINT ledger_posting_side CHECK ((debit_minor = 0) <> (credit_minor = 0))
);

CREATE FUNCTION ledger_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is only ever appended to'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_append_only';
END
$$;

CREATE TRIGGER ledger_entry_stays BEFORE UPDATE OR DELETE ON ledger_entry
    FOR EACH ROW EXECUTE FUNCTION ledger_stays();
CREATE TRIGGER ledger_posting_stays BEFORE UPDATE OR DELETE ON ledger_posting
    FOR EACH ROW EXECUTE FUNCTION ledger_stays();
CREATE TRIGGER ledger_entry_truncated BEFORE TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_stays();
CREATE TRIGGER ledger_posting_truncated BEFORE TRUNCATE ON ledger_posting
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_stays();

CREATE FUNCTION ledger_entry_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    entry_key uuid := CASE TG_TABLE_NAME WHEN 'ledger_entry' THEN (to_jsonb(NEW) ->> 'id')::uuid
        ELSE (to_jsonb(NEW) ->> 'entry_id')::uuid END;
BEGIN
    IF (SELECT count(*) < 2 FROM ledger_posting WHERE account_id = NEW.account_id AND entry_id = entry_key)
        OR EXISTS (SELECT FROM ledger_posting WHERE account_id = NEW.account_id AND entry_id = entry_key
            GROUP BY currency HAVING sum(debit_minor) <> sum(credit_minor)) THEN
        RAISE EXCEPTION 'debits and credits of a ledger entry are not equal'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entry_balanced';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER ledger_entry_balances AFTER INSERT ON ledger_entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_entry_balances();
CREATE CONSTRAINT TRIGGER ledger_posting_balances AFTER INSERT ON ledger_posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_entry_balances();

SELECT gatefold_tenant_table('ledger_entry');
SELECT gatefold_tenant_table('ledger_posting');

REVOKE UPDATE, DELETE ON ledger_entry, ledger_posting FROM billing_app;

SELECT gatefold_marks('ledger_entry', '{"account_id": "none", "id": "none", "kind": "none", "reference_id": "none",
    "occurred_at": "none"}'::jsonb);
SELECT gatefold_marks('ledger_posting', '{"account_id": "none", "entry_id": "none", "position": "none",
    "ledger_account": "none", "currency": "none", "debit_minor": "none", "credit_minor": "none"}'::jsonb);
