\set region random(0, 6)
\set product random(0, 299)
\set pieces random(1, 9)
\set cents random(1, 9999)
INSERT INTO orders (region, product, pieces, price) VALUES ('region ' || :region, :product, :pieces, :cents / 100.0);
