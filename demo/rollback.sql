\set product random(0, 299)
BEGIN;
INSERT INTO orders (region, product, pieces, price) SELECT 'region 0', :product, 1, 1 FROM generate_series(1, 10);
ROLLBACK;
