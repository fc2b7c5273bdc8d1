-- Run once by the PostgreSQL image on an empty volume; the database of Brushloop is made by POSTGRES_DB.
CREATE DATABASE labelstudio;
