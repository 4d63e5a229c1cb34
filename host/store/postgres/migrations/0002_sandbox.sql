-- A tool call that began to change something outside must not be repeated
-- unless it says that it may be. detail and log are a plugin's own text, so
-- they are bytes.
alter table step
	add column used           text    not null default '{}',
	add column effect_started boolean not null default false,
	add column detail         bytea   not null default '',
	add column log            bytea   not null default '';

-- A key whose time is up is as good as gone. Keys are listed in the order of
-- their bytes, whatever the language of the database.
alter table kv
	alter column key type text collate "C",
	add column expires_at timestamptz;
create index kv_expired on kv (expires_at) where expires_at is not null;
