-- kind: expand
-- min_compatible_code: 1

CREATE TABLE site (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    origin text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT site_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT site_origin_unique UNIQUE (account_id, origin)
);

SELECT gatefold_tenant_table('site');
SELECT gatefold_marks('site', '{
    "account_id": "none", "id": "none", "name": "none", "origin": "none", "created_at": "none"
}'::jsonb);

-- Routing: the gateway asks whose an origin is before it knows an account, so this table has no row-level security.
-- It holds nothing but what browsers say to anyone.
CREATE TABLE site_origin (
    origin text NOT NULL,
    account_id uuid NOT NULL,
    CONSTRAINT site_origin_pkey PRIMARY KEY (origin, account_id)
);

SELECT gatefold_marks('site_origin', '{"origin": "none", "account_id": "none"}'::jsonb);
