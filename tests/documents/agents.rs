//! Code of agents in the pages is the code that the demo and the node tests run.

use super::markdown;
use super::read;

#[test]
fn python_in_the_pages_is_what_the_demos_agents_run() {
    let mut count = 0;
    for block in markdown::pages().into_iter().flat_map(|page| page.blocks).filter(|block| block.language == "python") {
        let path = block.before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let path =
            path.unwrap_or_else(|| panic!("{}: say before it from which file it is: <!-- path -->", block.place));
        assert!(path.starts_with("tests/demo/agents/"), "{}: {path} is no agent of the demo", block.place);
        assert!(read(path).contains(&block.text), "{}: {path} has other lines", block.place);
        count += 1;
    }
    assert!(count >= 6, "docs/agents.md shows the code of each framework");
}

#[test]
fn every_agent_that_may_get_a_token_reads_it_as_the_pages_say() {
    let shown = markdown::page("docs/agents.md");
    let token = shown.blocks.iter().find(|block| block.text.starts_with("token_file = ")).expect("the token's lines");
    for agent in ["adk", "autogen", "crewai", "langgraph", "llamaindex"] {
        let code = read(&format!("tests/demo/agents/{agent}/agent.py"));
        assert!(code.contains(&token.text), "{agent} reads its token in another way");
    }
}
