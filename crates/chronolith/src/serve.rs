//! `chronolith serve`: run a node.

use chronolith_server::ServeArgs;

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    chronolith_server::serve(args)?;
    Ok(())
}
