-- A tool call that began to change something outside must not be repeated
-- unless it says that it may be. detail and log are a plugin's own text, so
-- they are bytes.
alter table step add column used text not null default '{}';
alter table step add column effect_started integer not null default 0;
alter table step add column detail blob not null default x'';
alter table step add column log blob not null default x'';

-- A key whose time is up is as good as gone.
alter table kv add column expires_at integer;
create index kv_expired on kv (expires_at) where expires_at is not null;
