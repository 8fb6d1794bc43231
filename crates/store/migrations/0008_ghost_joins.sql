-- Whether the server has said since then that it does not let the user in. The row stays: what it
-- did when it was first asked may live on with others, who show themselves in time.
ALTER TABLE joins_under_way ADD COLUMN is_answered INTEGER NOT NULL DEFAULT 0;
