-- kind: expand
-- min_compatible_code: 1
-- Whose an issued invoice is stays with it; its lines are written once, together; not even the owner empties it.
CREATE OR REPLACE FUNCTION invoice_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'an invoice is never deleted'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
    END IF;
    IF ROW (NEW.account_id, NEW.id, NEW.subscription_id, NEW.subject_id, NEW.currency, NEW.total_minor,
            NEW.period_number, NEW.issued_at)
        IS DISTINCT FROM
        ROW (OLD.account_id, OLD.id, OLD.subscription_id, OLD.subject_id, OLD.currency, OLD.total_minor,
            OLD.period_number, OLD.issued_at)
        OR (OLD.state <> 'open' AND ROW (NEW.state, NEW.number, NEW.paid_minor, NEW.due_minor, NEW.paid_at)
            IS DISTINCT FROM ROW (OLD.state, OLD.number, OLD.paid_minor, OLD.due_minor, OLD.paid_at)) THEN
        RAISE EXCEPTION 'an issued invoice stays as it is'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER invoice_truncated BEFORE TRUNCATE ON invoice
    FOR EACH STATEMENT EXECUTE FUNCTION invoice_stays();
CREATE TRIGGER invoice_line_truncated BEFORE TRUNCATE ON invoice_line
    FOR EACH STATEMENT EXECUTE FUNCTION invoice_line_stays();

-- No invoice commits without lines that add up, so that lines of a later statement can only be a change: one over
-- nothing would otherwise slip past the sum.
CREATE FUNCTION invoice_lines_together() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT account_id, invoice_id, count(*) AS lines FROM added GROUP BY account_id, invoice_id) AS given
        WHERE lines <> (SELECT count(*) FROM invoice_line
            WHERE invoice_line.account_id = given.account_id AND invoice_line.invoice_id = given.invoice_id)
    ) THEN
        RAISE EXCEPTION 'an issued invoice gets no further line'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'invoice_immutable';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER invoice_lines_together AFTER INSERT ON invoice_line REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION invoice_lines_together();

-- What an event says of a reader's card is emptied when it has been worked off; its payment keeps it.
UPDATE stripe_event SET error_reason = NULL, decline_code = NULL WHERE state IN ('done', 'ignored', 'refused');
SELECT gatefold_marks('stripe_event', '{
    "method": "pseudonym; basis: contract; retention: days_30",
    "error_reason": "payment; basis: contract; retention: days_30",
    "decline_code": "payment; basis: contract; retention: days_30"}'::jsonb);
INSERT INTO due (account_id, kind, reference, due_at)
    SELECT account_id, 'forget_stripe_event', id, received_at + interval '30 days' FROM stripe_event;
