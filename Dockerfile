# One image for every role: `antiphon run master`, `antiphon node serve ...`, `antiphon search ...`.
FROM python:3.13-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt . && useradd --create-home --uid 10001 antiphon \
    && install -d -o antiphon -m 0700 /record
USER antiphon
ENTRYPOINT ["antiphon"]
CMD ["--help"]
