-- kind: expand
-- min_compatible_code: 1
-- What every schema's migrations are written with. Roles are named after the schema: <schema>_owner, _app, _jobs, _backup.

-- Makes a table a tenant's: whoever has not set the tenant, or set another, sees and writes no row of it.
CREATE FUNCTION gatefold_tenant_table(tenant_table text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    -- Without FORCE the table's owner would be exempt.
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
        'CREATE POLICY tenant ON %I USING (account_id = nullif(current_setting(''app.account_id'', true), '''')::uuid)',
        tenant_table);
    EXECUTE format(
        'CREATE POLICY owner_all ON %I TO %I, %I USING (true)',
        tenant_table, current_schema() || '_owner', current_schema() || '_backup');
END
$$;

-- Lets the jobs role see all tenants' rows of a table, in the columns that are granted to it.
CREATE FUNCTION gatefold_jobs_table(tenant_table text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE POLICY jobs_all ON %I TO %I USING (true)', tenant_table, current_schema() || '_jobs');
END
$$;

-- Marks what personal data the columns hold, as their comments; refuses to leave a column of the table unmarked.
CREATE FUNCTION gatefold_marks(marked_table text, marks jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    marked record;
    unmarked text;
BEGIN
    FOR marked IN SELECT key, value FROM jsonb_each_text(marks) LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', marked_table, marked.key, 'pii: ' || marked.value);
    END LOOP;
    SELECT string_agg(attname, ', ' ORDER BY attnum) INTO unmarked FROM pg_attribute
    WHERE attrelid = marked_table::regclass AND attnum > 0 AND NOT attisdropped
      AND coalesce(col_description(attrelid, attnum), '') NOT LIKE 'pii: %';
    IF unmarked IS NOT NULL THEN
        RAISE EXCEPTION 'columns of % without a mark: %', marked_table, unmarked;
    END IF;
END
$$;
