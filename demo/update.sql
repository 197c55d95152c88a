\set back random(0, 40000)
\set region random(0, 6)
\set pieces random(1, 9)
UPDATE orders SET region = 'region ' || :region, pieces = :pieces WHERE id = (SELECT max(id) FROM orders) - :back;
